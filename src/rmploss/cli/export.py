"""`rmploss export`: write a trained network as ONNX, NIR, torch.export or TorchScript."""

import json as json_module
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import DataDir, Flag, RunDir
from rmploss.cli.wrapping import say

if TYPE_CHECKING:
    from rmploss.export.measure import Measured
    from rmploss.export.parity import Parity


@dataclass(frozen=True)
class Export:
    """Write a trained network as ONNX, NIR, torch.export or TorchScript, and compare each file.

    $ rmploss export runs/NAME --to onnx nir
    $ rmploss export runs/NAME --to nir --reader norse --out models
    $ rmploss export runs/NAME --to onnx-int8    8-bit weights, calibrated

    Norms are folded into convolutions. Every file is run in its own runtime (ONNX Runtime, PyTorch,
    the libraries that read NIR, as far as they are installed) on samples of the test split; how it
    compares with the network is printed and saved as parity.json.
    """

    run_dir: Positional[RunDir]
    """The run folder."""
    to: Annotated[
        tuple[Literal["onnx", "onnx-loop", "onnx-int8", "nir", "torch-export", "torchscript"], ...],
        arg(help_behavior_hint="(required)"),
    ] = ()
    """The formats."""
    out: Annotated[
        Path | None, arg(metavar="DIR", help_behavior_hint="(default: exports/ and the run's name)")
    ] = None
    """The folder of the files."""
    reader: Literal["nir", "spikingjelly", "snntorch", "norse", "sinabs"] = "nir"
    """The form of the NIR file: as NIR defines it, or as a library reads it."""
    nir: Literal["1.0.4", "1.0.8"] = "1.0.8"
    """The version of the package nir that must read the NIR file."""
    samples: Annotated[int, arg(metavar="N")] = 100
    """How many samples of the test split are compared."""
    checkpoint: Literal["last", "best"] = "last"
    """The epoch: the last or the most accurate."""
    averaged: Flag = False
    """Take the averaged weights of a recipe with `average`."""
    data_dir: DataDir = None
    """The folder of the data sets."""
    json: Flag = False
    """One JSON object per comparison on standard output, for programs."""

    def run(self) -> int:
        """Export and print."""
        from rmploss.engine.trained import load
        from rmploss.export.of_run import export_trained

        net = load(self.run_dir, checkpoint=self.checkpoint, averaged=self.averaged)
        folder = self.out or Path("exports", self.run_dir.resolve().name)
        export_trained(
            net,
            self.to,
            folder,
            reader=self.reader,
            oldest=self.nir,
            samples=self.samples,
            data_dir=self.data_dir,
            on_file=self._print,
            on_measured=self._print,
        )
        if not self.json:
            print(f"files: {folder}")
        return 0

    def _print(self, found: "Parity | Measured") -> None:
        if self.json:
            print(json_module.dumps(asdict(found)))
        else:
            say(found.line(), 2)
