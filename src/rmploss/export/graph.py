"""A network as a graph of layers, found by running it once: what all formats are written from.

Norms are folded into convolutions first (`lifecycle.fold`). A run with hooks on every layer notes
which layer's output becomes which layer's input; the axes of time and batch, `[T, B, ...]`, are
left out, since every layer but the neurons treats steps alike, and neurons carry a membrane.

    conv1 -> lif1 -> pool -> conv2 ---> add -> lif2 -> ... -> head -> sum over time
                       \\______________/
"""

import copy
import math
import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from rmploss import ops
from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from rmploss.models.amplitudes import Scale
from rmploss.neurons import Accumulator, SpikingLayer
from rmploss.neurons.lif import LIF

INPUT = "input"
"""The name of the network's input in a graph."""
LAYERS = (
    nn.Conv2d, nn.Linear, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.MaxPool2d, nn.Flatten, Scale,
    SpikingLayer, Accumulator,
)  # fmt: skip
"""The layers that a graph can hold; of the last two LIF neurons and a sum or mean over time."""
VIEWS = {
    "flatten", "unflatten", "view", "reshape", "unsqueeze", "squeeze", "expand", "contiguous", "to",
    "detach", "float", "type_as", "clone", "permute", "movedim", "transpose",
}  # fmt: skip
"""Functions that move time and batch about, or give a sample another shape."""
ARITHMETIC: dict[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
}
"""Functions of two values, or of a value and a number, by PyTorch's name."""
RESHAPE, MEAN = "reshape", "mean"
"""Functions of one value: to the node's shape, and the mean over the last axis."""
REFLECTED = {"radd": "add", "rmul": "mul", "iadd": "add", "imul": "mul", "isub": "sub"}


@dataclass(frozen=True)
class Node:
    """One layer or one sum in a graph.

    name: of the layer in the network, as "layer1.0.conv1.conv"; or of the function, as "add_2".
    does: the layer, folded; or the name of a function: of `ARITHMETIC`, `RESHAPE` or `MEAN`.
    inputs: names of nodes, `INPUT`, or numbers.
    shape: of the output of one sample and step, `[C, H, W]` or `[C]`.
    """

    name: str
    does: nn.Module | str
    inputs: tuple[str | float, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Graph:
    """A network in evaluation mode, in the order in which its layers run.

    nodes: the last one gives the outputs of a step, `[B, num_classes]`.
    shape: of the input of one sample and step, `[C, H, W]`.
    T: the steps for which a static image is shown, or of a sequence.
    static: whether the input is an image that is the same at every step.
    readout: "sum" or "mean" of the outputs over time.
    """

    nodes: tuple[Node, ...]
    shape: tuple[int, ...]
    T: int
    static: bool
    readout: str

    @property
    def neurons(self) -> tuple[Node, ...]:
        """The layers of neurons, in order."""
        return tuple(node for node in self.nodes if isinstance(node.does, LIF))

    def readers(self, name: str) -> list[Node]:
        """The nodes that read a value."""
        return [node for node in self.nodes if name in node.inputs]


@checked()
def graph_of(net: SpikingNetwork, sample: Tensor) -> Graph:
    """The graph of a network; the network itself stays as it is.

    sample: an input `[B, C, H, W]`, or a sequence `[T, B, C, H, W]`, B at least 1; its values do
        not matter.

    Raises `UserError` that names every layer or function that a graph cannot hold, and for a
    network on the device meta, which has no numbers.
    """
    if any(parameter.is_meta for parameter in net.parameters()):
        problem = Problem(type(net).__name__, "is on meta, without numbers", "load its weights")
        raise UserError("there is no network to write", [problem])
    with torch.no_grad():
        folded = fold(copy.deepcopy(net).to("cpu").float())
        recorder = _Recorder(folded)
        x = torch.zeros(sample.shape)
        with ops.use_backend("reference"), recorder.watching():
            recorder.begin(x)
            logits = folded(x)
    return recorder.graph(x, logits)


class _Recorder(TorchFunctionMode):
    """Notes the layers and functions of one forward; functions inside of layers do not count."""

    def __init__(self, net: SpikingNetwork) -> None:
        super().__init__()
        self.net, self.nodes = net, list[Node]()
        self.names: dict[int, str] = {}
        self.kept: list[Any] = []
        """All values that have a name: an object that is alive keeps its number (`id`)."""
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.strange: dict[str, Problem] = {}
        """Names of values that a graph cannot hold, each with the reason."""
        self.readout: Accumulator | None = None
        self.inside: list[str] = []
        """The names of the modules that run, the innermost last."""
        self.depth = 0
        """How many of them are layers."""

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module inside the block."""
        hooks: list[Any] = []
        for name, module in self.net.named_modules():
            is_layer = isinstance(module, LAYERS)
            hooks.append(
                module.register_forward_pre_hook(
                    lambda *_, name=name, is_layer=is_layer: self._enter(name, is_layer)
                )
            )
            hooks.append(
                module.register_forward_hook(
                    lambda layer, given, out, name=name: self._leave(name, layer, given, out)
                )
            )
        try:
            with self:
                yield
        finally:
            for hook in hooks:
                hook.remove()

    def begin(self, x: Tensor) -> None:
        """x is the network's input."""
        self.shapes[INPUT] = tuple(x.shape[-3:])
        self._call(x, INPUT)

    def graph(self, x: Tensor, logits: Tensor) -> Graph:
        """What was noted, as far as the logits depend on it."""
        end = self.names.get(id(logits))
        if end is None or self.readout is None:
            problem = Problem("readout", "is no sum or mean of the outputs over time")
            raise UserError("the network cannot be written as a graph of layers", [problem])
        needed = _needed(end, self.nodes, self.strange)
        problems = [self.strange[name] for name in needed if name in self.strange]
        if problems:
            raise UserError("the network cannot be written as a graph of layers", problems)
        nodes = tuple(node for node in self.nodes if node.name in needed)
        static = x.ndim == 4
        T = self.net.T if static else len(x)
        return Graph(nodes, tuple(x.shape[-3:]), T, static, self.readout.reduction)

    def _enter(self, name: str, is_layer: bool) -> None:
        self.inside.append(name)
        self.depth += is_layer

    def _leave(self, name: str, layer: nn.Module, given: Sequence[Any], out: Any) -> None:
        self.inside.pop()
        if not isinstance(layer, LAYERS):
            return
        self.depth -= 1
        if self.depth:
            return
        source = self.names.get(id(given[0]))
        if source is None:  # not a function of the input
            return
        if isinstance(layer, Accumulator):
            self.readout = layer
            self._call(out, source)
            return
        why = _unsuited(layer)
        # Layers get [T, B, C, ...] or, as one batch, [T B, C, ...]; neurons the former.
        leading = 2 if isinstance(layer, SpikingLayer) or out.ndim == 5 else 1
        shape = tuple(out.shape[leading:])
        self._add(self._free(name), layer, (source,), out, shape, why and Problem(name, *why))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Any,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Note a function that is called outside of layers."""
        out = func(*args, **(kwargs or {}))
        known = [self.names.get(id(x)) for x in args]
        if self.depth or not isinstance(out, Tensor) or not any(known):
            return out
        name = getattr(func, "__name__", str(func)).strip("_")
        source = next(filter(None, known))
        if name in VIEWS and known[0]:
            self._view(out, source)
            return out
        if name == MEAN and known[0] and (args[1:] == (-1,) or kwargs == {"dim": -1}):
            self._add(self._free(MEAN), MEAN, (source,), out, self.shapes[source][:-1])
            return out
        operands = [found or x for found, x in zip(known, args, strict=True)]
        if name == "rsub":
            name, operands = "sub", operands[::-1]
        name = REFLECTED.get(name, name)
        values = all(isinstance(x, str | float | int) for x in operands)
        fits = len(operands) == 2 and not kwargs and values
        why = None
        if name not in ARITHMETIC or not fits:
            where = (self.inside or [""])[-1] or type(self.net).__name__
            what = f"{name}() of PyTorch is no layer, and no sum or product of two values"
            why = Problem(where, what)
        places = tuple(x if isinstance(x, str) else float(x) for x in operands) if fits else ()
        inputs = places or tuple(filter(None, known))
        self._add(self._free(name), name, inputs, out, self.shapes[source], why)
        return out

    def _view(self, out: Tensor, source: str) -> None:
        """A value in another shape: a new node only if the shape of a sample changes."""
        shape = self.shapes[source]
        if not shape or tuple(out.shape[-len(shape) :]) == shape:
            self._call(out, source)
            return
        size, inner = math.prod(shape), list[int]()
        for length in reversed(out.shape):
            inner.insert(0, length)
            if math.prod(inner) == size:
                break
        if math.prod(inner) == size:
            self._add(self._free(RESHAPE), RESHAPE, (source,), out, tuple(inner))

    def _add(
        self,
        name: str,
        does: nn.Module | str,
        inputs: tuple[str | float, ...],
        out: Any,
        shape: tuple[int, ...],
        why: Problem | None = None,
    ) -> None:
        if why:
            self.strange[name] = why
        self.nodes.append(Node(name, does, inputs, shape))
        self.shapes[name] = shape
        self._call(out, name)

    def _call(self, value: Any, name: str) -> None:
        self.names[id(value)] = name
        self.kept.append(value)

    def _free(self, name: str) -> str:
        """The name, with a number if a node has it."""
        taken = {node.name for node in self.nodes}
        if name not in taken:
            return name
        return next(f"{name}_{n}" for n in range(2, len(taken) + 3) if f"{name}_{n}" not in taken)


def _unsuited(layer: nn.Module) -> tuple[str, str] | None:
    """Why a graph cannot hold a layer, and what can be done; None: it can."""
    kind = type(layer).__name__
    if isinstance(layer, SpikingLayer) and not isinstance(layer, LIF):
        return f"are {kind} neurons, which are no setting of LIF (Eqs. 1-3)", "neuron=lif"
    if isinstance(layer, nn.AdaptiveAvgPool2d) and layer.output_size not in (1, (1, 1)):
        return f"{kind} to {layer.output_size}: only to one pixel", "a pooling of fixed size"
    return None


def _needed(end: str, nodes: Sequence[Node], strange: Mapping[str, Problem]) -> set[str]:
    """The names of the nodes that a value depends on, its own too; none behind a strange one."""
    inputs = {node.name: node.inputs for node in nodes}
    found: set[str] = set()
    open_ = [end]
    while open_:
        name = open_.pop()
        if name in found or name not in inputs:
            continue
        found.add(name)
        if name not in strange:
            open_ += [x for x in inputs[name] if isinstance(x, str)]
    return found
