"""Export the network of a run into files, each compared with it on samples of its test split.

model.onnx  model-step.onnx     ONNX: all steps, and one with explicit state
model.nir                       NIR, in the form of one reader
model.pt2  model.pt             torch.export, TorchScript
parity.json                     how each file compares in the runtimes that read it
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss import store
from rmploss.data import Key
from rmploss.engine.batches import open_splits
from rmploss.engine.build import check
from rmploss.engine.listener import Listener
from rmploss.engine.trained import Trained
from rmploss.errors import UserError, unknown
from rmploss.export import nir_readers, parity
from rmploss.export.graph import Graph, graph_of
from rmploss.export.parity import Parity, Reference
from rmploss.export.to_nir import nir_bytes
from rmploss.export.to_onnx import onnx_model
from rmploss.export.to_torch import exported_bytes, scripted_bytes

SAMPLES = 100
"""On how many samples of the test split files are compared."""
PARITY = "parity.json"


def export_trained(
    net: Trained,
    targets: Sequence[str],
    folder: Path,
    *,
    reader: str = "nir",
    oldest: str = "1.0.8",
    samples: int = SAMPLES,
    data_dir: Path | None = None,
    on_file: Callable[[Parity], None] = lambda found: None,
) -> list[Parity]:
    """Write the files of some formats, compare each in its runtimes, and write parity.json.

    net: from `rmploss.load`.
    targets: names in `TARGETS`.
    folder: of the files; it is made if it does not exist.
    reader, oldest: see `to_nir`.
    samples: how many samples of the test split are compared.
    data_dir: the folder of the data sets; None: the default.
    on_file: is called with each comparison.

    Raises `UserError` for a network that a format cannot hold; then nothing was written.
    """
    wrong = [unknown("--to", target, TARGETS) for target in targets if target not in TARGETS]
    if wrong or not targets:
        raise UserError("no such format" if wrong else "no format was named: --to onnx", wrong)
    x = test_inputs(net, samples, data_dir)
    graph = graph_of(net.net, x)
    contents: dict[str, tuple[bytes, str]] = {}
    for target in targets:
        for name, content in _files(graph, target, reader, oldest).items():
            contents[name] = content, target
    given = parity.reference(net.net, x)
    store.make_folder(folder)
    found: list[Parity] = []
    for name, (content, target) in contents.items():
        store.write_bytes(folder / name, content)
        for compared in _compared(name, content, target, graph, given):
            found.append(compared)
            on_file(compared)
    store.write_text(folder / PARITY, json.dumps([asdict(each) for each in found], indent=1) + "\n")
    return found


TARGETS = ("onnx", "nir", "torch-export", "torchscript")
"""The formats."""


def test_inputs(net: Trained, count: int, data_dir: Path | None = None) -> Tensor:  # noqa: PT028
    """The first samples of a run's test split, `[B, C, H, W]` or `[T, B, C, H, W]`."""
    check(net.recipe, data_dir)
    _, samples = open_splits(net.recipe, net.dataset, data_dir, Listener())
    inputs = [samples[Key(0, index)][0] for index in range(min(count, len(samples)))]
    return torch.stack(inputs, inputs[0].ndim - 3)


def files_of(net: Trained, target: str, x: Tensor) -> tuple[dict[str, bytes], list[Parity]]:
    """The files of one format by name, and their comparisons on the inputs x; nothing is written.

    x: `[B, C, H, W]` or `[T, B, C, H, W]`.

    Raises `UserError` if the format cannot hold the network.
    """
    graph, given = graph_of(net.net, x), parity.reference(net.net, x)
    files = _files(graph, target, "nir", "1.0.8")
    found = [_compared(name, data, target, graph, given) for name, data in files.items()]
    return files, [each for part in found for each in part]


def _files(graph: Graph, target: str, reader: str, oldest: str) -> dict[str, bytes]:
    """The files of a format by name."""
    if target == "onnx":
        return {
            "model.onnx": onnx_model(graph).SerializeToString(),
            "model-step.onnx": onnx_model(graph, form="step").SerializeToString(),
        }
    if target == "nir":
        name = "model.nir" if reader == "nir" else f"model-{reader}.nir"
        return {name: nir_bytes(graph, reader=reader, oldest=oldest)}
    if target == "torch-export":
        return {"model.pt2": exported_bytes(graph)}
    return {"model.pt": scripted_bytes(graph)}


def _compared(
    name: str, content: bytes, target: str, graph: Graph, given: Reference
) -> list[Parity]:
    """The comparisons of one file, in every runtime that is installed."""
    if target == "onnx":
        compare = parity.of_onnx_step if "step" in name else parity.of_onnx
        return [compare(name, content, graph, given)]
    if target == "nir":
        readers: Any = nir_readers.installed()
        return [parity.of_nir(name, content, graph, given, reader) for reader in readers]
    return [parity.of_torch(name, content, given)]
