"""ONNX: a network as all time steps unrolled, or as one step with explicit state; any batch size.

    sequence   x [B, C, H, W] or [T, B, C, H, W]             ->  logits [B, K]
    step       x [B, C, H, W], u of every layer of neurons   ->  outputs [B, K], next u of each

Norms are folded into convolutions. Values have the names of their layers: "lif1" of a step, and
"t0/lif1" of step 0 of a sequence. Neurons are operators that every runtime has:

    u_pre = Add(Mul(u, decay), x)          o = Cast(GreaterOrEqual(u_pre, v_threshold))      (1-2)
    u     = Where(o, v_reset, u_pre)       soft: Sub(u_pre, Mul(o, reset_by))                (3)
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rmploss import store
from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.export.extras import require
from rmploss.export.graph import INPUT, MEAN, RESHAPE, Graph, Node, graph_of
from rmploss.export.int8 import ZERO, Scale8, round_weight
from rmploss.export.plain import Neurons, before_neurons
from rmploss.models import SpikingNetwork
from rmploss.models.amplitudes import Scale
from rmploss.neurons.lif import LIF

OPSET = 18
"""The version of ONNX's operators: the first whose ReduceMean takes its axes as an input."""
IR_VERSION = 10
"""The version of the file format."""
Form = Literal["sequence", "step"]
"""All time steps, or one with explicit state."""
BATCH = "B"


@checked()
def to_onnx(
    net: SpikingNetwork, sample: Tensor, path: str | Path, *, form: Form = "sequence"
) -> Path:
    """Write a network as ONNX; returns the path.

    net: in evaluation its outputs are those of the file, up to rounding.
    sample: an input `[B, C, H, W]`, or a sequence `[T, B, C, H, W]`, which fixes T.
    path: of the file.
    form: "sequence", all time steps; or "step", one, with the membranes as inputs and outputs.

    The batch size is free. Raises `UserError` for a network that is no graph of layers
    (`export.graph`), and without the package onnx.
    """
    path = Path(path)
    store.write_bytes(path, onnx_model(graph_of(net, sample), form=form).SerializeToString())
    return path


def onnx_model(
    graph: Graph, *, form: Form = "sequence", scales: Mapping[str, Scale8] | None = None
) -> Any:
    """The content of a file of `to_onnx`, an `onnx.ModelProto`.

    scales: of the inputs of convolutions (`int8.input_scales`), which then compute in 8 bits.
    """
    (onnx,) = require("onnx")
    writer = _Writer(onnx, graph, scales or {})
    inputs, outputs = writer.step() if form == "step" else writer.sequence()
    helper = onnx.helper
    content = helper.make_graph(writer.nodes, "rmploss", inputs, outputs, writer.constants)
    model = helper.make_model(
        content,
        producer_name="rmploss",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    facts = {"form": form, "T": graph.T, "readout": graph.readout}
    helper.set_model_props(model, {f"rmploss.{key}": str(fact) for key, fact in facts.items()})
    onnx.checker.check_model(model, full_check=True)
    return model


def membrane(neurons: str) -> str:
    """The name of the membrane after the reset, of a layer of neurons."""
    return f"{neurons}.u"


class _Writer:
    """Collects the operators and constants of a graph."""

    def __init__(self, onnx: Any, graph: Graph, scales: Mapping[str, Scale8]) -> None:
        self.onnx, self.graph, self.scales = onnx, graph, scales
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.known: set[str] = set()
        """The names of the constants."""

    def step(self) -> tuple[list[Any], list[Any]]:
        """The operators of one step; its inputs and outputs."""
        graph = self.graph
        inputs, outputs = [self._value("x", graph.shape)], []
        names = {INPUT: "x"}
        for node in graph.neurons:
            inputs.append(self._value(membrane(node.name), node.shape))
            outputs.append(self._value(f"next.{membrane(node.name)}", node.shape))
        for node in graph.nodes:
            u = membrane(node.name) if isinstance(node.does, LIF) else None
            names[node.name] = self._write(node, names, node.name, u, f"next.{u}")
        last = graph.nodes[-1]
        self._add("Identity", [names[last.name]], "outputs")
        return inputs, [self._value("outputs", last.shape), *outputs]

    def sequence(self) -> tuple[list[Any], list[Any]]:
        """The operators of all steps; the input and the output."""
        graph, names = self.graph, dict[str, str]()
        constant = set(before_neurons(graph) if graph.static else ())
        if graph.static:
            names[INPUT] = "x"
            given = self._value("x", graph.shape)
        else:
            given = self._value("x", graph.shape, steps=graph.T)
            frames = [f"t{t}/x.1" for t in range(graph.T)]
            self._node("Split", ["x"], frames, axis=0, num_outputs=graph.T)
        u: dict[str, str] = {}
        outputs = []
        for t in range(graph.T):
            if not graph.static:
                zero = self._constant("first", np.array([0]))
                names[INPUT] = self._add("Squeeze", [f"t{t}/x.1", zero], f"t{t}/x")
            for node in graph.nodes:
                if node.name in constant and t > 0:
                    continue
                place = node.name if node.name in constant else f"t{t}/{node.name}"
                after = f"t{t}/{membrane(node.name)}"
                names[node.name] = self._write(node, names, place, u.get(node.name), after)
                u[node.name] = after
            outputs.append(names[graph.nodes[-1].name])
        kind = "Mean" if graph.readout == "mean" else "Sum"
        self._add(kind, outputs, "logits")
        return [given], [self._value("logits", graph.nodes[-1].shape)]

    def _write(
        self, node: Node, names: dict[str, str], place: str, u: str | None, after: str
    ) -> str:
        """Add the operators of a node; returns the name of its value.

        names: of the values by the names of their nodes.
        place: the name of the value, and the beginning of those of values inside.
        u: the name of the membrane after the step before; None at rest.
        after: that of the membrane after this step.
        """
        inputs = [
            names[x] if isinstance(x, str) else self._constant(f"{node.name}.number", np.float32(x))
            for x in node.inputs
        ]
        does = node.does
        if isinstance(does, LIF):
            return self._neurons(node, does, inputs[0], place, u, after)
        if isinstance(does, str):
            return self._function(node, does, inputs, place)
        kind, constants, options = self._layer(node, does)
        if isinstance(does, nn.Conv2d) and node.name in self.scales:
            return self._convolution_of_integers(node, does, inputs[0], place, options)
        return self._add(kind, [inputs[0], *constants], place, **options)

    def _convolution_of_integers(
        self, node: Node, layer: nn.Conv2d, x: str, place: str, options: dict[str, Any]
    ) -> str:
        """A convolution of 8-bit numbers (`export.int8`)."""
        name, of_input = node.name, self.scales[node.name]
        rounded, of_weight = round_weight(layer.weight)
        scale = self._constant(f"{name}.x.scale", np.float32(of_input.scale))
        zeros = [
            self._constant(f"{name}.x.zero", np.uint8(of_input.zero)),
            self._constant(f"{name}.weight.zero", np.uint8(ZERO)),
        ]
        q = self._add("QuantizeLinear", [x, scale, zeros[0]], f"{place}.x8")
        weight = self._constant(f"{name}.weight8", rounded)
        sums = self._add("ConvInteger", [q, weight, *zeros], f"{place}.sums", **options)
        real = self._add("Cast", [sums], f"{place}.real", to=1)
        unit = (of_weight * np.float32(of_input.scale)).reshape(-1, 1, 1)
        y = self._constant(f"{name}.scale", unit)
        if layer.bias is None:
            return self._add("Mul", [real, y], place)
        scaled = self._add("Mul", [real, y], f"{place}.scaled")
        bias = self._constant(f"{name}.bias8", _numpy(layer.bias.view(-1, 1, 1)))
        return self._add("Add", [scaled, bias], place)

    def _layer(self, node: Node, layer: nn.Module) -> tuple[str, list[str], dict[str, Any]]:
        """The operator of a layer without memory: its name, constants and attributes."""
        name = node.name
        if isinstance(layer, nn.Conv2d):
            options = {
                "kernel_shape": layer.kernel_size,
                "strides": layer.stride,
                "pads": _pads(name, layer.padding, layer.padding_mode),
                "dilations": layer.dilation,
                "group": layer.groups,
            }
            parameters = [] if name in self.scales else self._parameters(name, layer)
            return "Conv", parameters, options
        if isinstance(layer, nn.Linear):
            return "Gemm", self._parameters(name, layer), {"transB": 1}
        if isinstance(layer, nn.AdaptiveAvgPool2d):
            return "GlobalAveragePool", [], {}
        if isinstance(layer, nn.AvgPool2d | nn.MaxPool2d):
            options = {
                "kernel_shape": _pair(layer.kernel_size),
                "strides": _pair(layer.stride),
                "pads": _pads(name, _pair(layer.padding)),
                "ceil_mode": int(layer.ceil_mode),
            }
            if isinstance(layer, nn.MaxPool2d):
                return "MaxPool", [], {**options, "dilations": _pair(layer.dilation)}
            return "AveragePool", [], {**options, "count_include_pad": layer.count_include_pad}
        if isinstance(layer, Scale):
            height = layer.height.reshape(-1, 1, 1)
            return "Mul", [self._constant(f"{name}.height", _numpy(height))], {}
        assert isinstance(layer, nn.Flatten)
        return "Flatten", [], {"axis": 1}

    def _function(self, node: Node, name: str, inputs: list[str], place: str) -> str:
        """The operator of a node that is no layer."""
        if name == RESHAPE:
            shape = self._constant(f"{node.name}.shape", np.array([-1, *node.shape]))
            return self._add("Reshape", [*inputs, shape], place)
        if name == MEAN:
            axis = self._constant("last axis", np.array([-1]))
            return self._add("ReduceMean", [*inputs, axis], place, keepdims=0)
        return self._add(name.capitalize(), inputs, place)

    def _neurons(
        self, node: Node, layer: LIF, x: str, place: str, u: str | None, after: str
    ) -> str:
        """The operators of one step of LIF neurons."""
        neurons = Neurons(layer)

        def number(name: str, value: Tensor | float) -> str:
            value = torch.as_tensor(value, dtype=torch.float32)
            if value.ndim:  # one per channel
                value = value.view(-1, *[1] * (len(node.shape) - 1))
            return self._constant(f"{node.name}.{name}", _numpy(value))

        if neurons.has_gain:
            x = self._add("Mul", [x, number("gain", neurons.gain)], f"{place}.current")
        if u is None and neurons.rest:
            u = number("rest", neurons.rest)
        if u is not None:
            leaked = self._add("Mul", [u, number("decay", neurons.decay)], f"{place}.leaked")
            x = self._add("Add", [leaked, x], f"{place}.u_pre")
        fired = self._add(
            "GreaterOrEqual", [x, number("v_threshold", neurons.v_threshold)], f"{place}.fired"
        )
        binary = layer.is_binary
        o = self._add("Cast", [fired], place if binary else f"{place}.o", to=1)
        if neurons.v_reset is None:
            by = neurons.v_threshold if neurons.reset_by is None else neurons.reset_by
            drop = self._add("Mul", [o, number("reset_by", by)], f"{place}.drop")
            self._add("Sub", [x, drop], after)
        else:
            self._add("Where", [fired, number("v_reset", neurons.v_reset), x], after)
        if binary:
            return o
        height = layer.emit(torch.ones(1, 1, *node.shape))[0, 0]
        return self._add("Mul", [o, self._constant(f"{node.name}.height", _numpy(height))], place)

    def _parameters(self, name: str, layer: nn.Conv2d | nn.Linear) -> list[str]:
        found = [self._constant(f"{name}.weight", _numpy(layer.weight))]
        if layer.bias is not None:
            found.append(self._constant(f"{name}.bias", _numpy(layer.bias)))
        return found

    def _constant(self, name: str, value: Any) -> str:
        if name not in self.known:
            self.known.add(name)
            self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _add(self, kind: str, inputs: Sequence[str], output: str, **options: Any) -> str:
        self._node(kind, inputs, [output], **options)
        return output

    def _node(self, kind: str, inputs: Sequence[str], outputs: list[str], **options: Any) -> None:
        made = self.onnx.helper.make_node(kind, list(inputs), outputs, outputs[0], **options)
        self.nodes.append(made)

    def _value(self, name: str, shape: tuple[int, ...], steps: int | None = None) -> Any:
        """An input or output, float32 `[B, ...]`, or `[T, B, ...]`."""
        leading = [BATCH] if steps is None else [steps, BATCH]
        return self.onnx.helper.make_tensor_value_info(name, 1, [*leading, *shape])


def _pair(value: Any) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value)


def _pads(name: str, padding: Any, mode: str = "zeros") -> list[int]:
    """ONNX's pads, [top, left, bottom, right]; `UserError` for what they cannot say."""
    padding = 0 if padding == "valid" else padding
    if isinstance(padding, str) or mode != "zeros":
        where = f"{name}.padding = {padding!r}, padding_mode = {mode!r}"
        problem = Problem(where, "cannot be written as ONNX", "padding=1, padding_mode='zeros'")
        raise UserError("a layer cannot be written", [problem])
    return _pair(padding) * 2


def _numpy(value: Tensor) -> np.ndarray:
    return value.detach().cpu().float().contiguous().numpy()
