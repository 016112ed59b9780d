"""ONNX: a network as all time steps, or as one step with explicit state; any batch size.

    sequence   x [B, C, H, W] or [T, B, C, H, W]             ->  logits [B, K]
    loop       x and, of an image, T                         ->  logits [B, K], for any T
    step       x [B, C, H, W], u of every layer of neurons   ->  outputs [B, K], next u of each

A sequence is unrolled, the T of its sample; a loop has the operators of one step, which ONNX's Loop
repeats. Norms are folded into convolutions.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from rmploss import store
from rmploss.arguments import checked
from rmploss.export.extras import require
from rmploss.export.graph import Graph, graph_of
from rmploss.export.int8 import Rounding8
from rmploss.export.onnx_loop import loop
from rmploss.export.onnx_writer import Writer
from rmploss.models import SpikingNetwork

OPSET = 18
"""The version of ONNX's operators: the first whose ReduceMean takes its axes as an input."""
IR_VERSION = 10
"""The version of the file format."""
Form = Literal["sequence", "loop", "step"]
"""All time steps, unrolled or in a loop; or one with explicit state."""


@checked()
def to_onnx(
    net: SpikingNetwork, sample: Tensor, path: str | Path, *, form: Form = "sequence"
) -> Path:
    """Write a network as ONNX; returns the path.

    net: in evaluation its outputs are those of the file, up to rounding.
    sample: an input `[B, C, H, W]`, or a sequence `[T, B, C, H, W]`, which fixes T.
    path: of the file.
    form: "sequence", all time steps, unrolled; "loop", all time steps, any number of them; or
        "step", one, with the membranes as inputs and outputs.

    The batch size is free. Raises `UserError` for a network that is no graph of layers
    (`export.graph`), and without the package onnx.
    """
    path = Path(path)
    store.write_bytes(path, onnx_model(graph_of(net, sample), form=form).SerializeToString())
    return path


def onnx_model(
    graph: Graph,
    *,
    form: Form = "sequence",
    rounded: Mapping[str, Rounding8] | None = None,
    facts: Mapping[str, str] | None = None,
) -> Any:
    """The content of a file of `to_onnx`, an `onnx.ModelProto`.

    rounded: the convolutions that compute in 8 bits (`int8.calibrate`).
    facts: what else the file says of itself, "rmploss.NAME" in its metadata.
    """
    (onnx,) = require("onnx")
    writer = Writer(onnx, graph, rounded or {})
    write = {"sequence": writer.sequence, "step": writer.step, "loop": lambda: loop(writer)}
    inputs, outputs = write[form]()
    helper = onnx.helper
    content = helper.make_graph(writer.nodes, "rmploss", inputs, outputs, writer.constants)
    model = helper.make_model(
        content,
        producer_name="rmploss",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    own = {"form": form, "T": graph.T, "readout": graph.readout, **(facts or {})}
    helper.set_model_props(model, {f"rmploss.{key}": str(fact) for key, fact in own.items()})
    onnx.checker.check_model(model, full_check=True)
    return model
