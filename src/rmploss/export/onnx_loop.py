"""All time steps in ONNX's Loop: the operators of one step, repeated; any number of steps.

    u = rest, sum = 0;   for t in 0 .. T - 1:   outputs, u = step(x or x[t], u);   sum += outputs

T is an input for an image, and the first axis of a sequence; a runtime refuses T < 1. What lies
before the first neurons is computed in every step, also for an image.
"""

from typing import Any

import numpy as np

from rmploss.export.onnx_writer import BATCH, Writer, membrane
from rmploss.export.plain import Neurons
from rmploss.neurons.lif import LIF

STEPS = "T"
"""The number of steps: the input of that name, or the axis of a sequence."""


def loop(writer: Writer) -> tuple[list[Any], list[Any]]:
    """Replace what a writer has by a loop over the operators of a step; its inputs and outputs."""
    graph, helper, kinds = writer.graph, writer.onnx.helper, writer.onnx.TensorProto
    (_, *membranes), (_, *after) = writer.step("frame")
    if graph.static:
        frame = helper.make_node("Identity", ["x"], ["frame"], "frame")
    else:
        frame = helper.make_node("Gather", ["x", "t"], ["frame"], "frame", axis=0)
    total = helper.make_node("Add", ["sum", "outputs"], ["next.sum"], "next.sum")
    going_on = helper.make_node("Identity", ["go on"], ["goes on"], "goes on")
    sums = [helper.make_tensor_value_info(name, 1, None) for name in ("sum", "next.sum")]
    body = helper.make_graph(
        [frame, *writer.nodes, total, going_on],
        "step",
        [
            helper.make_tensor_value_info("t", kinds.INT64, []),
            helper.make_tensor_value_info("go on", kinds.BOOL, []),
            *(*membranes, sums[0]),
        ],
        [helper.make_tensor_value_info("goes on", kinds.BOOL, []), *(*after, sums[1])],
        writer.constants,
    )
    writer.nodes, writer.constants, writer.known = [], [], set()
    steps, starts = _around(writer)
    steps = _positive(writer, steps)
    last = [f"last.{value.name}" for value in membranes]
    end = "logits" if graph.readout == "sum" else "sum over time"
    always = writer.constant("always", np.array(True))
    writer.node("Loop", [steps, always, *starts], [*last, end], body=body)
    if graph.readout == "mean":
        writer.add("Cast", [steps], "T of floats", to=kinds.FLOAT)
        writer.add("Div", [end, "T of floats"], "logits")
    given = [writer.value("x", graph.shape)]
    if graph.static:
        given.append(helper.make_tensor_value_info(STEPS, kinds.INT64, []))
    else:
        shape = [STEPS, BATCH, *graph.shape]
        given = [helper.make_tensor_value_info("x", kinds.FLOAT, shape)]
    return given, [writer.value("logits", graph.nodes[-1].shape)]


def _around(writer: Writer) -> tuple[str, list[str]]:
    """The number of steps, and what the membranes and the sum of the outputs begin with."""
    graph = writer.graph
    axis = 0 if graph.static else 1
    writer.add("Shape", ["x"], "batch size", start=axis, end=axis + 1)
    steps = STEPS
    if not graph.static:
        writer.add("Shape", ["x"], "steps [1]", start=0, end=1)
        first = writer.constant("first", np.array([0]))
        steps = writer.add("Squeeze", ["steps [1]", first], "steps")
    begins = [(membrane(node.name), node.shape, _rest(node.does)) for node in graph.neurons]
    begins.append(("sum", graph.nodes[-1].shape, 0.0))
    starts = []
    for name, shape, value in begins:
        sides = writer.constant(f"{name}.shape", np.array(shape, np.int64))
        whole = writer.add("Concat", ["batch size", sides], f"{name}.all", axis=0)
        fill = writer.onnx.numpy_helper.from_array(np.array([value], np.float32))
        starts.append(writer.add("ConstantOfShape", [whole], f"{name}.first", value=fill))
    return steps, starts


def _positive(writer: Writer, steps: str) -> str:
    """The number of steps; a runtime fails below 1, where a loop would give the sum of nothing.

    ONNX has no operator that raises: the number is taken from a list of one at place 0, or at 1.
    """
    one = writer.constant("one", np.array(1))
    first = writer.constant("first", np.array([0]))
    listed = writer.add("Unsqueeze", [steps, first], "list of T")
    too_few = writer.add("Less", [steps, one], "T below 1")
    place = writer.add("Cast", [too_few], "place of T", to=writer.onnx.TensorProto.INT64)
    return writer.add("Gather", [listed, place], "T, at least 1", axis=0)


def _rest(neurons: Any) -> float:
    assert isinstance(neurons, LIF)
    return Neurons(neurons).rest
