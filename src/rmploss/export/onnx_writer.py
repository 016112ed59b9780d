"""The operators and constants of a graph in ONNX.

Values have the names of their layers: "lif1" of a step, and
"t0/lif1" of step 0 of a sequence. Neurons are operators that every runtime has:

    u_pre = Add(Mul(u, decay), x)          o = Cast(GreaterOrEqual(u_pre, v_threshold))      (1-2)
    u     = Sub(u_pre, Mul(u_pre, o))      soft: Sub(u_pre, Mul(o, reset_by))                (3)
            Where(o, v_reset, u_pre)       to another potential than 0

u_pre - u_pre is 0, and ONNX Runtime's Where takes as long as half of a convolution. A sequence
leaves out the membranes after the last step.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.export.graph import INPUT, MEAN, RESHAPE, Graph, Node
from rmploss.export.int8 import Rounding8, Scale8, round_weight
from rmploss.export.plain import Neurons, before_neurons
from rmploss.models.amplitudes import Scale
from rmploss.neurons.lif import LIF

BATCH = "B"
"""The name of the axis whose length is free."""


def membrane(neurons: str) -> str:
    """The name of the membrane after the reset, of a layer of neurons."""
    return f"{neurons}.u"


class Writer:
    """Collects the operators and constants of a graph."""

    def __init__(self, onnx: Any, graph: Graph, rounded: Mapping[str, Rounding8]) -> None:
        self.onnx, self.graph, self.rounded = onnx, graph, rounded
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.known: set[str] = set()
        """The names of the constants."""

    def step(self, x: str = "x") -> tuple[list[Any], list[Any]]:
        """The operators of one step; its inputs and outputs.

        x: the name of the input.
        """
        graph = self.graph
        inputs, outputs = [self.value(x, graph.shape)], []
        names = {INPUT: x}
        for node in graph.neurons:
            inputs.append(self.value(membrane(node.name), node.shape))
            outputs.append(self.value(f"next.{membrane(node.name)}", node.shape))
        for node in graph.nodes:
            u = membrane(node.name) if isinstance(node.does, LIF) else None
            names[node.name] = self._write(node, names, node.name, u, f"next.{u}")
        last = graph.nodes[-1]
        self.add("Identity", [names[last.name]], "outputs")
        return inputs, [self.value("outputs", last.shape), *outputs]

    def sequence(self) -> tuple[list[Any], list[Any]]:
        """The operators of all steps; the input and the output."""
        graph, names = self.graph, dict[str, str]()
        constant = set(before_neurons(graph) if graph.static else ())
        if graph.static:
            names[INPUT] = "x"
            given = self.value("x", graph.shape)
        else:
            given = self.value("x", graph.shape, steps=graph.T)
            frames = [f"t{t}/x.1" for t in range(graph.T)]
            self.node("Split", ["x"], frames, axis=0, num_outputs=graph.T)
        u: dict[str, str] = {}
        outputs = []
        for t in range(graph.T):
            if not graph.static:
                zero = self.constant("first", np.array([0]))
                names[INPUT] = self.add("Squeeze", [f"t{t}/x.1", zero], f"t{t}/x")
            for node in graph.nodes:
                if node.name in constant and t > 0:
                    continue
                place = node.name if node.name in constant else f"t{t}/{node.name}"
                after = f"t{t}/{membrane(node.name)}" if t < graph.T - 1 else None
                names[node.name] = self._write(node, names, place, u.get(node.name), after)
                u[node.name] = str(after)
            outputs.append(names[graph.nodes[-1].name])
        kind = "Mean" if graph.readout == "mean" else "Sum"
        self.add(kind, outputs, "logits")
        return [given], [self.value("logits", graph.nodes[-1].shape)]

    def _write(
        self, node: Node, names: dict[str, str], place: str, u: str | None, after: str | None
    ) -> str:
        """Add the operators of a node; returns the name of its value.

        names: of the values by the names of their nodes.
        place: the name of the value, and the beginning of those of values inside.
        u: the name of the membrane after the step before; None at rest.
        after: that of the membrane after this step; None where nothing reads it.
        """
        inputs = [
            names[x] if isinstance(x, str) else self.constant(f"{node.name}.number", np.float32(x))
            for x in node.inputs
        ]
        does = node.does
        if isinstance(does, LIF):
            return self._neurons(node, does, inputs[0], place, u, after)
        if isinstance(does, str):
            return self._function(node, does, inputs, place)
        kind, constants, options = self._layer(node, does)
        if isinstance(does, nn.Conv2d) and node.name in self.rounded:
            return self._convolution_in_8_bits(node, does, inputs[0], place, options)
        return self.add(kind, [inputs[0], *constants], place, **options)

    def _convolution_in_8_bits(
        self, node: Node, layer: nn.Conv2d, x: str, place: str, options: dict[str, Any]
    ) -> str:
        """A convolution of 8-bit numbers (`export.int8`)."""
        name, rounding = node.name, self.rounded[node.name]
        weight, of_weight = round_weight(layer.weight)
        of_x, of_y = self._scale(f"{name}.x", rounding.x), self._scale(f"{name}.y", rounding.y)
        q = self.add("QuantizeLinear", [x, *of_x], f"{place}.x8")
        inputs = [
            *(q, *of_x),
            self.constant(f"{name}.weight8", weight),
            self.constant(f"{name}.weight.scale", of_weight),
            self.constant(f"{name}.weight.zero", np.zeros(len(of_weight), np.int8)),
            *of_y,
        ]
        if layer.bias is not None:
            bias = np.rint(_numpy(layer.bias) / (of_weight * np.float32(rounding.x.scale)))
            inputs.append(self.constant(f"{name}.bias32", bias.astype(np.int32)))
        y = self.add("QLinearConv", inputs, f"{place}.y8", **options)
        return self.add("DequantizeLinear", [y, *of_y], place)

    def _scale(self, name: str, of: Scale8) -> tuple[str, str]:
        """The constants of a rounding."""
        scale = self.constant(f"{name}.scale", np.float32(of.scale))
        return scale, self.constant(f"{name}.zero", np.uint8(of.zero))

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
            parameters = [] if name in self.rounded else self._parameters(name, layer)
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
            return "Mul", [self.constant(f"{name}.height", _numpy(height))], {}
        assert isinstance(layer, nn.Flatten)
        return "Flatten", [], {"axis": 1}

    def _function(self, node: Node, name: str, inputs: list[str], place: str) -> str:
        """The operator of a node that is no layer."""
        if name == RESHAPE:
            shape = self.constant(f"{node.name}.shape", np.array([-1, *node.shape]))
            return self.add("Reshape", [*inputs, shape], place)
        if name == MEAN:
            axis = self.constant("last axis", np.array([-1]))
            return self.add("ReduceMean", [*inputs, axis], place, keepdims=0)
        return self.add(name.capitalize(), inputs, place)

    def _neurons(
        self, node: Node, layer: LIF, x: str, place: str, u: str | None, after: str | None
    ) -> str:
        """The operators of one step of LIF neurons."""
        neurons = Neurons(layer)

        def number(name: str, value: Tensor | float) -> str:
            value = torch.as_tensor(value, dtype=torch.float32)
            if value.ndim:  # one per channel
                value = value.view(-1, *[1] * (len(node.shape) - 1))
            return self.constant(f"{node.name}.{name}", _numpy(value))

        if neurons.has_gain:
            x = self.add("Mul", [x, number("gain", neurons.gain)], f"{place}.current")
        if u is None and neurons.rest:
            u = number("rest", neurons.rest)
        if u is not None:
            leaked = self.add("Mul", [u, number("decay", neurons.decay)], f"{place}.leaked")
            x = self.add("Add", [leaked, x], f"{place}.u_pre")
        fired = self.add(
            "GreaterOrEqual", [x, number("v_threshold", neurons.v_threshold)], f"{place}.fired"
        )
        binary = layer.is_binary
        o = self.add("Cast", [fired], place if binary else f"{place}.o", to=1)
        if after is not None and neurons.v_reset:
            self.add("Where", [fired, number("v_reset", neurons.v_reset), x], after)
        elif after is not None:
            by = x
            if neurons.v_reset is None:
                subtracted = neurons.v_threshold if neurons.reset_by is None else neurons.reset_by
                by = number("reset_by", subtracted)
            self.add("Sub", [x, self.add("Mul", [o, by], f"{place}.drop")], after)
        if binary:
            return o
        height = layer.emit(torch.ones(1, 1, *node.shape))[0, 0]
        return self.add("Mul", [o, self.constant(f"{node.name}.height", _numpy(height))], place)

    def _parameters(self, name: str, layer: nn.Conv2d | nn.Linear) -> list[str]:
        found = [self.constant(f"{name}.weight", _numpy(layer.weight))]
        if layer.bias is not None:
            found.append(self.constant(f"{name}.bias", _numpy(layer.bias)))
        return found

    def constant(self, name: str, value: Any) -> str:
        """Add a constant, once; returns its name."""
        if name not in self.known:
            self.known.add(name)
            self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def add(self, kind: str, inputs: Sequence[str], output: str, **options: Any) -> str:
        """Add an operator with one output; returns the name of that."""
        self.node(kind, inputs, [output], **options)
        return output

    def node(self, kind: str, inputs: Sequence[str], outputs: list[str], **options: Any) -> None:
        """Add an operator; it is named after its first output."""
        made = self.onnx.helper.make_node(kind, list(inputs), outputs, outputs[0], **options)
        self.nodes.append(made)

    def value(self, name: str, shape: tuple[int, ...], steps: int | None = None) -> Any:
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
