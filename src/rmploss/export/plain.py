"""A graph as PyTorch modules of plain operations: one time step with explicit state, or all steps.

    step       x(t), u(t-1) of every layer of neurons  ->  outputs(t), u(t) of every layer
    sequence   x  ->  logits, the sum or mean of the outputs over time

No hook, no kernel of ours and no state is left in them: what torch.onnx, torch.export and
torch.jit.trace take. The neurons' equation is that of `ops.lif.reference.lif_step`.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from rmploss.export.graph import ARITHMETIC, INPUT, RESHAPE, Graph, Node
from rmploss.neurons.lif import LIF
from rmploss.ops.lif import reference
from rmploss.surrogate import Surrogate


class _Fires(Surrogate):
    """The firing function `1[v >= 0]` (Eq. 2) of inference, as one operation that tracers see."""

    def primitive(self, v: Tensor) -> Tensor:
        """The step itself."""
        return (v >= 0).to(v.dtype)

    def derivative(self, v: Tensor) -> Tensor:
        """0."""
        return torch.zeros_like(v)

    def __call__(self, v: Tensor) -> Tensor:
        """The spikes, without a gradient."""
        return self.primitive(v)


FIRE = _Fires()


class Neurons(nn.Module):
    """One time step of a layer of LIF neurons (Eqs. 1-3), with its constants as buffers."""

    decay: Tensor
    v_threshold: Tensor
    gain: Tensor

    def __init__(self, layer: LIF) -> None:
        super().__init__()
        decay, v_threshold = layer.constants()
        gain = layer.input_gain()
        self.has_gain = gain is not None
        for name, value in (("decay", decay), ("v_threshold", v_threshold), ("gain", gain)):
            constant = torch.as_tensor(1.0 if value is None else value, dtype=torch.float32)
            self.register_buffer(name, constant.detach().clone())
        self.v_reset, self.reset_by = layer.v_reset, layer.reset_by
        self.layer = layer

    def forward(self, x: Tensor, u: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and the membrane after the reset, both `[B, C, ...]`.

        x: input current.
        u: the membrane after the step before; `rest` before the first.
        """
        if self.has_gain:
            x = x * self.gain
        o, _, u = reference.lif_step(
            x,
            u,
            decay=_along_channels(self.decay, x),
            v_threshold=_along_channels(self.v_threshold, x),
            v_reset=self.v_reset,
            reset_by=self.reset_by,
            detach_reset=True,
            surrogate=FIRE,
        )
        return self.layer.emit(o.unsqueeze(0)).squeeze(0), u

    @property
    def rest(self) -> float:
        """The membrane before the first step."""
        return self.v_reset or 0.0


class Step(nn.Module):
    """One time step: `forward(x, *u)` returns the outputs `[B, K]`, then the new u of every layer.

    graph: of the network.
    """

    def __init__(self, graph: Graph) -> None:
        super().__init__()
        self.graph = graph
        self.layers = nn.ModuleList(
            Neurons(node.does) if isinstance(node.does, LIF) else _module_of(node)
            for node in graph.nodes
        )
        self.eval()

    def forward(self, x: Tensor, *u: Tensor) -> tuple[Tensor, ...]:
        """x `[B, C, H, W]` and a membrane `[B, C, ...]` of every layer of neurons, in order."""
        values = self.run({INPUT: x}, u)
        return (values[self.graph.nodes[-1].name], *(values[name] for name in self.states))

    @property
    def states(self) -> tuple[str, ...]:
        """The names of the membranes, in order: "u of lif1"."""
        return tuple(_membrane(node.name) for node in self.graph.neurons)

    def at_rest(self, batch: int) -> tuple[Tensor, ...]:
        """The membranes before the first step."""
        return tuple(
            torch.full((batch, *node.shape), layer.rest)
            for node, layer in zip(self.graph.nodes, self.layers, strict=True)
            if isinstance(layer, Neurons)
        )

    def run(
        self, values: dict[str, Tensor], u: Sequence[Tensor], known: frozenset[str] = frozenset()
    ) -> dict[str, Tensor]:
        """All values of a step by name; the membranes are among them.

        values: those that are given, the input at least.
        u: the membranes after the step before.
        known: names of nodes that need not be computed.
        """
        values, membranes = dict(values), iter(u)
        for node, layer in zip(self.graph.nodes, self.layers, strict=True):
            if node.name in known:
                continue
            inputs = [values[x] if isinstance(x, str) else x for x in node.inputs]
            if isinstance(layer, Neurons):
                out, after = layer(inputs[0], next(membranes))
                values[node.name], values[_membrane(node.name)] = out, after
            elif isinstance(node.does, str):
                values[node.name] = _function(node, node.does, inputs)
            else:
                values[node.name] = layer(*inputs)
        return values


class Unrolled(nn.Module):
    """All time steps, unrolled: `forward(x)` returns the logits `[B, K]`.

    graph: of the network; x is `[B, C, H, W]` if it is static, else `[T, B, C, H, W]`.
    with_spikes: return the spikes of every layer as well, `[T, B, C, ...]` each.

    What lies before the first neurons is computed once for a static image.
    """

    def __init__(self, graph: Graph, *, with_spikes: bool = False) -> None:
        super().__init__()
        self.graph, self.with_spikes = graph, with_spikes
        self.step = Step(graph)
        self.constant = frozenset(before_neurons(graph) if graph.static else ())

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Logits `[B, K]`; with spikes, those of every layer follow."""
        static = self.graph.static
        given: dict[str, Tensor] = {INPUT: x}
        if static:
            rest = frozenset(node.name for node in self.graph.nodes) - self.constant
            given = self.step.run(given, (), rest)
        u: tuple[Tensor, ...] = self._at_rest(x)
        outputs, spikes = [], []
        for t in range(self.graph.T):
            values = self.step.run(given if static else {INPUT: x[t]}, u, self.constant)
            u = tuple(values[name] for name in self.step.states)
            outputs.append(values[self.graph.nodes[-1].name])
            spikes.append([values[node.name] for node in self.graph.neurons])
        total = torch.stack(outputs).sum(0)
        logits = total / self.graph.T if self.graph.readout == "mean" else total
        if not self.with_spikes:
            return logits
        return (logits, *(torch.stack(steps) for steps in zip(*spikes, strict=True)))

    def _at_rest(self, x: Tensor) -> tuple[Tensor, ...]:
        """The membranes before the first step, for the batch of x, whatever its size."""
        first = x if self.graph.static else x[0]
        one = first.flatten(1)[:, :1] * 0
        return tuple(
            (one + layer.rest).view(-1, *[1] * len(node.shape)).expand(-1, *node.shape)
            for node, layer in zip(self.graph.nodes, self.step.layers, strict=True)
            if isinstance(layer, Neurons)
        )


def _module_of(node: Node) -> nn.Module:
    """A layer without memory as a module of PyTorch; a function, which is none, as Identity."""
    layer = node.does
    if isinstance(layer, str):
        return nn.Identity()
    if isinstance(layer, nn.Conv2d):
        return _copied(layer, nn.Conv2d)
    if isinstance(layer, nn.AvgPool2d):
        return nn.AvgPool2d(
            layer.kernel_size,
            layer.stride,
            layer.padding,
            layer.ceil_mode,
            layer.count_include_pad,
            layer.divisor_override,
        )
    return layer


def _copied(layer: nn.Conv2d, kind: type[nn.Conv2d]) -> nn.Conv2d:
    """The same convolution as PyTorch's own class."""
    conv = kind(
        layer.in_channels,
        layer.out_channels,
        layer.kernel_size,  # pyright: ignore[reportArgumentType]
        layer.stride,  # pyright: ignore[reportArgumentType]
        layer.padding,  # pyright: ignore[reportArgumentType]
        layer.dilation,  # pyright: ignore[reportArgumentType]
        layer.groups,
        bias=layer.bias is not None,
        padding_mode=layer.padding_mode,
    )
    conv.load_state_dict(layer.state_dict())
    return conv


def _function(node: Node, name: str, inputs: Sequence[Any]) -> Tensor:
    """The value of a node that is no layer, `[B, ...]`."""
    if name in ARITHMETIC:
        return ARITHMETIC[name](*inputs)
    (x,) = inputs
    return x.flatten(1).unflatten(1, node.shape) if name == RESHAPE else x.mean(-1)


def before_neurons(graph: Graph) -> list[str]:
    """The names of the nodes that no neurons come before."""
    found: list[str] = []
    for node in graph.nodes:
        ready = all(x in (INPUT, *found) for x in node.inputs if isinstance(x, str))
        if ready and not isinstance(node.does, LIF):
            found.append(node.name)
    return found


def _membrane(neurons: str) -> str:
    return f"u of {neurons}"


def _along_channels(constant: Tensor, x: Tensor) -> Tensor:
    """A number as it is; one per channel `[C]` for x `[B, C, ...]`."""
    return constant.view(-1, *[1] * (x.ndim - 2)) if constant.ndim else constant
