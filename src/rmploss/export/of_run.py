"""Export the network of a run into files, each compared with it on samples of its test split.

model.onnx  model-step.onnx     ONNX: all steps, and one with explicit state
model-loop.onnx                 ONNX: all steps, any number of them
model.nir                       NIR, in the form of one reader
model.pt2  model.pt             torch.export, TorchScript
model-int8.onnx  int8.json      ONNX with 8-bit weights; accuracy and time beside float32
parity.json                     how each file compares in the runtimes that read it
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss import store
from rmploss.data import Key, Samples
from rmploss.engine.batches import open_splits
from rmploss.engine.build import check
from rmploss.engine.listener import Listener
from rmploss.engine.trained import Trained
from rmploss.errors import UserError, unknown
from rmploss.export import nir_readers, parity
from rmploss.export.graph import Graph, graph_of
from rmploss.export.int8 import Rounding8, calibrate
from rmploss.export.measure import Measured, measure
from rmploss.export.parity import Parity, Reference
from rmploss.export.to_nir import nir_bytes
from rmploss.export.to_onnx import onnx_model
from rmploss.export.to_torch import exported_bytes, scripted_bytes

SAMPLES = 100
"""On how many samples of the test split files are compared."""
WHITE = 255
"""The white of the pixels of which a file says mean and deviation."""
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
    on_measured: Callable[[Measured], None] = lambda found: None,
) -> list[Parity]:
    """Write the files of some formats, compare each in its runtimes, and write parity.json.

    net: from `rmploss.load`.
    targets: names in `TARGETS`.
    folder: of the files; it is made if it does not exist.
    reader, oldest: see `to_nir`.
    samples: how many samples of the test split are compared.
    data_dir: the folder of the data sets; None: the default.
    on_file: is called with each comparison.
    on_measured: is called with accuracy and time of the 8-bit file, and of the one in float32.

    Raises `UserError` for a network that a format cannot hold; then nothing was written.
    """
    wrong = [unknown("--to", target, TARGETS) for target in targets if target not in TARGETS]
    if wrong or not targets:
        raise UserError("no such format" if wrong else "no format was named: --to onnx", wrong)
    train, test = _splits(net, data_dir)
    x, labels = first(test, samples)
    graph, facts = graph_of(net.net, x), facts_of(net, test)
    contents: dict[str, tuple[bytes, str]] = {}
    for target in targets:
        rounded = calibrate(graph, first(train, samples)[0]) if target == INT8 else None
        for name, content in _files(graph, target, facts, reader, oldest, rounded).items():
            contents[name] = content, target
    given = parity.reference(net.net, x)
    store.make_folder(folder)
    found: list[Parity] = []
    for name, (content, target) in contents.items():
        store.write_bytes(folder / name, content)
        for compared in _compared(name, content, target, graph, given, reader):
            found.append(compared)
            on_file(compared)
    if INT8 in targets:
        whole = {"model.onnx": onnx_model(graph).SerializeToString(), EIGHT: contents[EIGHT][0]}
        measured = measure(whole, x, labels)
        lines = json.dumps([asdict(each) for each in measured], indent=1)
        store.write_text(folder / "int8.json", lines + "\n")
        for each in measured:
            on_measured(each)
    store.write_text(folder / PARITY, json.dumps([asdict(each) for each in found], indent=1) + "\n")
    return found


INT8, EIGHT = "onnx-int8", "model-int8.onnx"
LOOP = "onnx-loop"
TARGETS = ("onnx", LOOP, INT8, "nir", "torch-export", "torchscript")
"""The formats."""


def inputs_of(net: Trained, count: int, data_dir: Path | None = None) -> Tensor:
    """The first samples of a run's test split, `[B, C, H, W]` or `[T, B, C, H, W]`."""
    return first(_splits(net, data_dir)[1], count)[0]


def first(samples: Samples, count: int) -> tuple[Tensor, Tensor]:
    """The first samples of a split: inputs as the network takes them, and labels `[B]`."""
    found = [samples[Key(0, index)] for index in range(min(count, len(samples)))]
    inputs = [x for x, _ in found]
    return torch.stack(inputs, inputs[0].ndim - 3), torch.tensor([label for _, label in found])


def _splits(net: Trained, data_dir: Path | None) -> tuple[Samples, Samples]:
    check(net.recipe, data_dir)
    return open_splits(net.recipe, net.dataset, data_dir, Listener())


def facts_of(net: Trained, test: Samples) -> dict[str, str]:
    """What an ONNX file says of its inputs and classes, each as JSON.

    classes: their names. mean, std: of images, an input is (x - mean) / std of the pixels x in
    0..255, for each channel; absent where inputs are made otherwise.
    """
    facts = {"classes": json.dumps(net.classes)}
    standardize: Any = getattr(getattr(test, "prepare", None), "standardize", None)
    if standardize is not None and standardize.white == WHITE:
        for name in ("mean", "std"):
            facts[name] = json.dumps(getattr(standardize, name).flatten().tolist())
    return facts


def files_of(
    net: Trained, target: str, count: int, data_dir: Path | None = None
) -> tuple[dict[str, bytes], list[Parity]]:
    """The files of one format by name, and their comparisons; nothing is written.

    count: on how many samples of the test split they are compared.
    data_dir: the folder of the data sets.

    Raises `UserError` if the format cannot hold the network.
    """
    _, test = _splits(net, data_dir)
    x, _ = first(test, count)
    graph, given = graph_of(net.net, x), parity.reference(net.net, x)
    files = _files(graph, target, facts_of(net, test))
    found = [_compared(name, data, target, graph, given) for name, data in files.items()]
    return files, [each for part in found for each in part]


def _files(
    graph: Graph,
    target: str,
    facts: Mapping[str, str],
    reader: str = "nir",
    oldest: str = "1.0.8",
    rounded: Mapping[str, Rounding8] | None = None,
) -> dict[str, bytes]:
    """The files of a format by name."""
    if target == INT8:
        return {EIGHT: onnx_model(graph, rounded=rounded, facts=facts).SerializeToString()}
    if target == LOOP:
        return {"model-loop.onnx": onnx_model(graph, form="loop", facts=facts).SerializeToString()}
    if target == "onnx":
        return {
            "model.onnx": onnx_model(graph, facts=facts).SerializeToString(),
            "model-step.onnx": onnx_model(graph, form="step", facts=facts).SerializeToString(),
        }
    if target == "nir":
        name = "model.nir" if reader == "nir" else f"model-{reader}.nir"
        return {name: nir_bytes(graph, reader=reader, oldest=oldest)}
    if target == "torch-export":
        return {"model.pt2": exported_bytes(graph)}
    return {"model.pt": scripted_bytes(graph)}


def _compared(
    name: str, content: bytes, target: str, graph: Graph, given: Reference, reader: str = "nir"
) -> list[Parity]:
    """The comparisons of one file, in every runtime that is installed."""
    if target in ("onnx", LOOP, INT8):
        forms = {"model-step.onnx": parity.of_onnx_step, "model-loop.onnx": parity.of_onnx_loop}
        compare = forms.get(name, parity.of_onnx)
        return [compare(name, content, graph, given)]
    if target == "nir":
        readers = nir_readers.that_read(reader)
        return [parity.of_nir(name, content, graph, given, each) for each in readers]
    return [parity.of_torch(name, content, given)]
