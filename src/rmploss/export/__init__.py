"""Write trained networks in the formats of other runtimes: ONNX, NIR, torch.export, TorchScript.

graph.py          a network as a graph of layers, norms folded    plain.py    ... in plain PyTorch
to_onnx.py        to_nir.py        to_torch.py                    one file per format
parity.py         a file in its runtime beside the network        of_run.py   all of it for a run
  nir_readers.py  libraries that read NIR                         nir_simulator.py  its definition
  nir_styles.py   what each of them understands                   nir_path.py  for those depth first
int8.py           ONNX with 8-bit weights                     measure.py  its accuracy, time
  onnx_writer.py  operators of a graph                            onnx_loop.py      a loop over time
extras.py         the packages that formats need              pack_run.py a network to give away
neurobench.py     a network as a model of NeuroBench
"""

from rmploss.export.graph import graph_of
from rmploss.export.neurobench import to_neurobench
from rmploss.export.to_nir import to_nir
from rmploss.export.to_onnx import to_onnx
from rmploss.export.to_torch import to_torch_export, to_torchscript

__all__ = ["graph_of", "to_neurobench", "to_nir", "to_onnx", "to_torch_export", "to_torchscript"]
