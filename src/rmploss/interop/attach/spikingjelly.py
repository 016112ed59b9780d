"""SpikingJelly 2: the membrane before the reset follows from the input current and the spikes.

    h(t) = v(t-1) + k (x(t) - (v(t-1) - rest))          decay_input; without: v - k (v - rest) + x
    v(t) = (1 - o(t)) h(t) + v_reset o(t)               hard reset; soft: h(t) - v_threshold o(t)

with k = 1 / tau, for `ParametricLIFNode` sigmoid(w), for `IFNode` 0 (and the input as it is); rest
is v_reset, with the soft reset 0. Its kernels keep h to themselves, so h is computed once more,
with the spikes that the kernel gave and their gradient: exact on every backend, for one tensor
`[T, B, ...]` more to keep. The neuron of this package runs instead where it has all these settings.
`SimpleLIFNode` and others that are derived from `SimpleBaseNode` show h in `neuronal_fire`.
"""

from typing import Any

from torch import Tensor, nn

from rmploss import ops
from rmploss.errors import Problem, UserError
from rmploss.interop.attach.layer import (
    ForeignLayer,
    Levels,
    library_class,
    name_of,
    replaced,
)
from rmploss.ops.constants import filled
from rmploss.stats import MembraneStats
from rmploss.surrogate import ArcTan, Rectangle, Sigmoid, Surrogate, Triangle

NODES = ("LIFNode", "IFNode", "ParametricLIFNode")
SIMPLE = ("SimpleBaseNode", "SimpleLIFNode", "SimpleIFNode")
NOT_SPIKING = ("NonSpikingBaseNode", "NonSpikingLIFNode", "NonSpikingIFNode")
STEPS = ("single_step_functional_forward", "multi_step_functional_forward")


class _Levelled(ForeignLayer):
    """What both kinds of nodes have in common."""

    def levels(self) -> Levels:
        """v_reset, to which the leak pulls too, or 0 with the soft reset; and the threshold."""
        return Levels(self.module.v_reset or 0.0, self.module.v_threshold)


class SimpleNode(_Levelled):
    """A node in Python, of SpikingJelly or of its user, whose step is charge, fire and reset."""

    def slow(self) -> str:
        """Its charge is a method that anybody may have written."""
        return f"{type(self.module).__name__}.neuronal_charge: a method of Python"

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """One time step, or all of a sequence."""
        fire = self.module.neuronal_fire

        def seen() -> Tensor:
            spikes = fire()
            self.see(self.module.v, spikes)
            return spikes

        with replaced(self.module, "neuronal_fire", seen):
            return self.inner(*args, **kwargs)


class Node(_Levelled):
    """`LIFNode`, `IFNode` or `ParametricLIFNode`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module)
        self.kind = library_class(module, "spikingjelly").__name__
        self.known: dict[tuple[str, float], Surrogate | None] = {}

    def rate(self) -> float | Tensor:
        """k of the leak; 0 for `IFNode`."""
        if self.kind == "ParametricLIFNode":
            return self.module.w.sigmoid()
        return 1 / self.module.tau if self.kind == "LIFNode" else 0.0

    def gain(self) -> float | Tensor:
        """What the input current is multiplied by."""
        return self.rate() if getattr(self.module, "decay_input", False) else 1.0

    def observe(self, x: Tensor) -> Tensor:
        """The spikes, `[T, B, ...]` in step mode "m", else `[B, ...]`."""
        node = self.module
        (v,) = node.materialize_states((x,), (node.v,), node.step_mode)
        spikes = self.inner(x)
        steps = ((x, spikes),) if node.step_mode == "s" else zip(x, spikes, strict=True)
        rate, gain, rest = self.rate(), self.gain(), self.levels().rest
        for x_t, o in steps:
            x_t, v, o = (ops.at_least_single(value) for value in (x_t, v, o))
            h = v - rate * (v - rest) + gain * x_t
            self.see(h, o)
            reset = o.detach() if node.detach_reset else o
            if node.v_reset is None:
                v = h - node.v_threshold * reset
            else:
                v = (1 - reset) * h + node.v_reset * reset
        return spikes

    def slow(self) -> str:
        """The field for which `ops.lif_layer` has no setting."""
        node = self.module
        if node.step_mode != "m":
            return f'step_mode = "{node.step_mode}": the fast neuron takes sequences'
        if node.store_v_seq:
            return "store_v_seq = True: the fast neuron keeps no membrane"
        if node._neuron_precision is not None:
            return "neuron precision: the fast neuron computes in float32 at least"
        if self._surrogate() is None:
            shown = name_of(node.surrogate_function)
            return f"surrogate_function = {shown}: rmploss has no such surrogate"
        return ""

    def run_fast(self, x: Tensor, stats: MembraneStats | None) -> Tensor:
        """The spikes `[T, B, C, ...]` of the same neuron in the unit of Eq. 8; sets its v.

        In that unit the threshold is 1/2, rest and hard reset are 0.
        """
        node, rest, unit = self.module, self.levels().rest, self.levels().unit()
        start = None
        if isinstance(node.v, Tensor) or node.v != rest:
            (v,) = node.materialize_states((x,), (node.v,), "m")
            start = (v - rest) / unit
        surrogate = self._surrogate()
        assert surrogate is not None  # else it is not fast
        spikes, moments, u, *_ = ops.lif_layer(
            x,
            start,
            neuron={
                "decay": 1 - self.rate(),
                "v_threshold": self.v_threshold,
                "v_reset": None if node.v_reset is None else 0.0,
                "reset_by": None,
                "detach_reset": node.detach_reset,
                "surrogate": surrogate,
                "moments": None if stats is None else stats.spec,
            },
            gain=per_channel(self.gain() / unit, x),
        )
        node.v, node.v_seq = u * unit + rest, None
        if stats is not None:
            assert moments is not None
            stats.extend(self, moments, x.numel() // x.shape[2])
        return spikes

    def _surrogate(self) -> Surrogate | None:
        """The surrogate in the unit of Eq. 8, of v / unit: one of this package, or None."""
        given, unit = self.module.surrogate_function, float(self.levels().unit())
        if isinstance(given, Surrogate):
            return given if unit == 1 else None
        alpha = getattr(given, "alpha", None)
        if not isinstance(alpha, float | int) or not getattr(given, "spiking", False):
            return None
        key = (type(given).__name__, alpha * unit)
        if key not in self.known:  # no functools.cache: torch.compile warns of it
            self.known[key] = translated(*key)
        return self.known[key]


def per_channel(value: float | Tensor, x: Tensor) -> Tensor:
    """A constant, or a scalar that is learnt, as `[C]` for x `[T, B, C, ...]`."""
    if isinstance(value, Tensor):
        return value.to(x.dtype).expand(x.shape[2])
    return filled(value, x.shape[2], x.dtype, x.device)


def translated(name: str, alpha: float) -> Surrogate | None:
    """The surrogate of SpikingJelly's name with that alpha; None if this package has none."""
    if name == "Sigmoid":
        return Sigmoid(alpha=alpha)
    if name == "ATan":
        return ArcTan(alpha=alpha)
    if name == "PiecewiseQuadratic":
        return Triangle(width=1 / alpha)
    return Rectangle(width=1 / alpha) if name == "Rect" else None


def find(module: nn.Module) -> ForeignLayer | None:
    """The attached layer of a node; None for other modules. Raises `UserError`."""
    kind = library_class(module, "spikingjelly")
    if ".activation_based.neuron" not in kind.__module__ or kind.__name__ in NOT_SPIKING:
        return None
    if kind.__name__ not in NODES + SIMPLE:
        fix = f"one of {', '.join(NODES)}, or a node derived from SimpleBaseNode"
        raise UserError("", [Problem(kind.__name__, "keeps its membrane to itself", fix)])
    changed = [
        step for step in STEPS if getattr(type(module), step, 0) is not getattr(kind, step, 0)
    ]
    if changed:
        what = f"is not that of {kind.__name__}"
        raise UserError("", [Problem(changed[0], what, "derive the node from SimpleBaseNode")])
    layer = Node(module) if kind.__name__ in NODES else SimpleNode(module)
    problems = layer.levels().problems("v_reset", "v_threshold")
    if not getattr(layer.module.surrogate_function, "spiking", True):
        what = "gives no spikes, the target of Eq. 8"
        problems.append(Problem("surrogate_function.spiking = False", what, "True"))
    if problems:
        raise UserError("", problems)
    return layer
