"""`membrane_stats`: the moments that every spiking layer took of its membrane in one forward.

    with membrane_stats(net) as stats:      # one entry per spiking layer of this forward
        logits = net(images)
    loss = cross_entropy(logits, labels) + rmp(stats, progress=(epoch + 1) / epochs)

Spiking layers look for the innermost open block and add their moments to it. Without one nothing
is computed and nothing recorded. The block belongs to the thread (or task) that opened it.
"""

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint as torch_checkpoint

from rmploss.errors import UserError
from rmploss.ops import asked, use_backend
from rmploss.ops.collectives import all_reduce_sum, ranks
from rmploss.ops.lif.moments import ERROR, MEMBRANE, SPIKES, SQUARE, MomentSpec


class Recorded(Protocol):
    """What a layer tells of itself when it records: see `LayerMoments`."""

    layer_name: str
    v_threshold: float
    unregularized: ClassVar[str | None]
    place: str


@dataclass(frozen=True)
class LayerMoments:
    """What one spiking layer recorded.

    name: of the layer in the network ("layer1.0.lif1"), or "lif<i>" in the order of execution;
    moments `[4, C]`: sums over time, batch and space of u, u^2, |o - u|^p and o per channel,
    differentiable; count: how many values each sum holds (T*B*H*W); v_threshold: where it fires;
    unregularized: why no regularizer of the membrane is defined for it, or None; place: "inner" of
    a residual block, "sum" where the layer sees the sum of a block's branches, or "".
    """

    name: str
    moments: Tensor
    count: int
    v_threshold: float
    unregularized: str | None = None
    place: str = ""

    def of_all_ranks(self) -> "LayerMoments":
        """The entry of the global batch: what a function that is not linear in the moments needs.

        Differentiable; the ranks must have equal shares. Without a process group: this entry.
        """
        size = ranks(sync=True)
        if size == 1:
            return self
        total = all_reduce_sum(self.moments)
        return dataclasses.replace(self, moments=total, count=self.count * size)

    @property
    def elements(self) -> int:
        """The number of membrane values of the layer: channels times count."""
        return self.count * self.moments.shape[1]

    @property
    def quantization_error(self) -> Tensor:
        """The mean of q(u) = |o - u|^p over the layer (Eq. 9), a scalar."""
        return self.moments[ERROR].sum() / self.elements

    @property
    def firing_rate(self) -> Tensor:
        """The mean of o over the layer, a scalar: spikes per neuron and time step."""
        return self.moments[SPIKES].sum() / self.elements

    @property
    def mean(self) -> Tensor:
        """The mean of u per channel, `[C]`."""
        return self.moments[MEMBRANE] / self.count

    @property
    def variance(self) -> Tensor:
        """The (biased) variance of u per channel, `[C]`."""
        return self.moments[SQUARE] / self.count - self.mean.square()


@dataclass
class MembraneStats:
    """The entries of one `membrane_stats` block, in the order in which the layers ran."""

    spec: MomentSpec = field(default_factory=MomentSpec)
    layers: list[LayerMoments] = field(default_factory=list)

    def record(self, layer: "Recorded", moments: Tensor, count: int) -> None:
        """Add the entry of one layer: its moments `[4, C]`, sums of `count` values each."""
        name = layer.layer_name or f"lif{len(self.layers)}"
        told = (layer.v_threshold, layer.unregularized, layer.place)
        self.layers.append(LayerMoments(name, moments, count, *told))

    def detach(self) -> "MembraneStats":
        """The same entries without their graph: for logs."""
        layers = [dataclasses.replace(e, moments=e.moments.detach()) for e in self.layers]
        return MembraneStats(self.spec, layers)

    def __iter__(self) -> Iterator[LayerMoments]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


_OPEN: ContextVar[MembraneStats | None] = ContextVar("membrane_stats", default=None)
_RECOMPUTING: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def membrane_stats(
    net: nn.Module | None = None, spec: MomentSpec | None = None
) -> Iterator[MembraneStats]:
    """Record the membrane moments of every spiking layer that runs inside the block.

    net: names the entries after its submodules; spec: which moments (`RMPLoss.spec` of an
    objective; the paper's by default). Nested blocks shadow each other: an entry goes to the
    innermost. For activation checkpointing use `rmploss.checkpoint`.
    """
    if not isinstance(net, nn.Module | None) or not isinstance(spec, MomentSpec | None):
        raise UserError(
            "membrane_stats(net, spec) takes a module and a MomentSpec, for example rmp.spec; "
            f"not {type(net).__name__} and {type(spec).__name__}"
        )
    if net is not None:
        name_layers(net)
    stats = MembraneStats(spec or MomentSpec())
    token = _OPEN.set(stats)
    try:
        yield stats
    finally:
        _OPEN.reset(token)


def open_stats() -> MembraneStats | None:
    """The innermost open block, which a spiking layer records into, or None."""
    return _OPEN.get()


def name_layers(net: nn.Module) -> None:
    """Tell every spiking layer (a module with a `layer_name`) its name in the network."""
    for name, module in net.named_modules():
        if isinstance(getattr(module, "layer_name", None), str):
            plain = name.replace("_orig_mod.", "").removeprefix("module.")
            setattr(module, "layer_name", plain)  # noqa: B010  a module's own types are tensors


def recomputing() -> bool:
    """Whether `checkpoint` is running a function for the second time, in backward."""
    return _RECOMPUTING.get()


def checkpoint(function: Callable[..., Any], *arguments: Any) -> Any:
    """Activation checkpointing that is aware of membrane statistics.

    As `torch.utils.checkpoint.checkpoint(function, *arguments, use_reentrant=False)`: stores no
    activation of `function` and runs it again in backward. That second run takes the same moments,
    so that it saves the same tensors, and records them nowhere: each layer counts once. Running
    statistics of a norm count once as well.
    """
    stats = open_stats()
    if stats is None and torch.compiler.is_compiling():
        return torch_checkpoint(function, *arguments, use_reentrant=False)
    again = _Again(None if stats is None else stats.spec, asked())
    return torch_checkpoint(
        function, *arguments, use_reentrant=False, context_fn=lambda: (nullcontext(), again)
    )


class _Again(AbstractContextManager[None]):
    """Around the second run, as often as backward repeats it; spec, backend: of the first run.

    Whatever blocks happen to be open in backward see nothing of it, and change nothing in it.
    """

    def __init__(self, spec: MomentSpec | None, backend: str) -> None:
        self.spec = spec
        self.backend = backend

    def __enter__(self) -> None:
        self.opened = _OPEN.set(None if self.spec is None else MembraneStats(self.spec))
        self.started = _RECOMPUTING.set(True)
        self.computing = use_backend(self.backend)
        self.computing.__enter__()

    def __exit__(self, *_: object) -> None:
        self.computing.__exit__(None, None, None)
        _RECOMPUTING.reset(self.started)
        _OPEN.reset(self.opened)
