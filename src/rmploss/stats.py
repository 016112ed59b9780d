"""`membrane_stats`: record the membrane moments of every spiking layer of a forward.

    with membrane_stats(net) as stats:      # one entry per spiking layer of this forward
        logits = net(images)
    loss = cross_entropy(logits, labels) + rmp(stats, progress=(epoch + 1) / epochs)

A spiking layer adds its moments to the innermost open block; without one it computes none. The
block belongs to the thread (or task) that opened it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError, unknown
from rmploss.ops.collectives import all_reduce_sum, ranks
from rmploss.ops.constants import vector
from rmploss.ops.lif.moments import ERROR, MEMBRANE, SPIKES, SQUARE, MomentSpec

SUMMED = "stats.over_time(), or layer.over_time()"
"""What to type where sums over all steps are needed."""
SMALLEST_VARIANCE = 1e-12
"""The smallest variance of a deviation, which bounds the gradient of the square root."""


class Recorded(Protocol):
    """A layer that records moments: the attributes that `LayerMoments` copies from it."""

    v_threshold: float
    unregularized: ClassVar[str | None]
    place: str

    @property
    def layer_name(self) -> str:
        """The name of the layer in its network, or ""."""
        ...


@dataclass(frozen=True)
class LayerMoments:
    """The membrane moments of one spiking layer in one forward; dimensionless.

    name: of the layer in the network ("layer1.0.lif1"), or "lif<i>" in the order of execution.
    moments: `[4, C]`, differentiable: per channel the sums of u, u^2, |o - u|^p and o over time,
        batch and space; `[T, 4, C]` over batch and space with `MomentSpec.per_step`.
    count: the number of values in each sum, T*B*H*W; per step B*H*W.
    v_threshold: the threshold of the layer.
    unregularized: why no regularizer of the membrane is defined for the layer; None: one is.
    place: "inner" for a neuron inside a residual block, "sum" for one after the sum of a block's
        branches, otherwise "".
    trains: whether the layer was in training mode.
    has_grad_mode: whether gradients were enabled when it ran: not so in the first run of PyTorch's
        reentrant checkpointing, whose moments have no gradient.
    """

    name: str
    moments: Tensor
    count: int
    v_threshold: float
    unregularized: str | None = None
    place: str = ""
    trains: bool = False
    has_grad_mode: bool = True

    def of_all_ranks(self) -> "LayerMoments":
        """The moments of the global batch, for functions that are not linear in them.

        Differentiable. The ranks must have equal shares. Without a process group: this entry.
        """
        size = ranks(sync=True)
        if size == 1:
            return self
        total = all_reduce_sum(self.moments)
        return dataclasses.replace(self, moments=total, count=self.count * size)

    @property
    def elements(self) -> int:
        """The number of membrane values of the layer: channels times count, over all steps."""
        return self.count * self.moments.numel() // 4

    @property
    def quantization_error(self) -> Tensor:
        """The mean of q(u) = |o - u|^p over the layer (Eq. 9), a scalar."""
        return self.row(ERROR).sum() / self.elements

    @property
    def firing_rate(self) -> Tensor:
        """The mean of o over the layer, a scalar: spikes per neuron and time step."""
        return self.row(SPIKES).sum() / self.elements

    @property
    def mean(self) -> Tensor:
        """The mean of u per channel, `[C]`; per step `[T, C]`."""
        return self.row(MEMBRANE) / self.count

    @property
    def variance(self) -> Tensor:
        """The (biased) variance of u per channel, `[C]`; per step `[T, C]`."""
        return self.row(SQUARE) / self.count - self.mean.square()

    @property
    def deviation(self) -> Tensor:
        """The standard deviation of u per channel, at least 1e-6, `[C]`; per step `[T, C]`."""
        return self.variance.clamp(min=SMALLEST_VARIANCE).sqrt()

    def over_time(self) -> "LayerMoments":
        """The sums over all steps, `[4, C]`, of moments per step; other moments as they are."""
        if self.moments.ndim == 2:
            return self
        steps = self.moments.shape[0]
        return dataclasses.replace(self, moments=self.moments.sum(0), count=self.count * steps)

    def row(self, row: int) -> Tensor:
        """One of the moments: MEMBRANE, SQUARE, ERROR or SPIKES; `[C]`, per step `[T, C]`."""
        return self.moments.select(-2, row)


def weighted_sum(layers: Sequence[LayerMoments], row: int, weights: Sequence[float]) -> Tensor:
    """sum over layers l of weights[l] sum_c moments_l[row, c], a scalar; in one pass for all.

    layers: at least one, of moments `[4, C_l]`.
    row: of the moments, as ERROR.
    weights: one per layer, dimensionless.

    Raises `UserError` for moments of every step, `[T, 4, C_l]`.
    """
    per_step = [
        Problem(layer.name, f"has moments of every step, {list(layer.moments.shape)}", SUMMED)
        for layer in layers
        if layer.moments.ndim != 2
    ]
    if per_step:
        raise UserError("no weighted sum of these moments", per_step)
    flat = torch.cat([layer.moments.flatten() for layer in layers])
    runs: list[tuple[float, int]] = []
    for layer, weight in zip(layers, weights, strict=True):
        rows, C = layer.moments.shape
        runs += [(0.0, row * C), (weight, C), (0.0, (rows - 1 - row) * C)]
    return (flat * vector(tuple(runs), flat.dtype, flat.device)).sum()


@dataclass
class MembraneStats:
    """The entries of one `membrane_stats` block, in the order in which the layers ran.

    trains: whether the network of the block is in training mode and has parameters to train.
    """

    spec: MomentSpec = field(default_factory=MomentSpec)
    layers: list[LayerMoments] = field(default_factory=list)
    trains: bool = False
    _places: dict["Recorded", int] = field(default_factory=dict, repr=False, compare=False)

    def record(self, layer: "Recorded", moments: Tensor, count: int) -> None:
        """Append the entry of one layer.

        layer: gives its name, threshold and place.
        moments: `[4, C]` or `[T, 4, C]`, see `LayerMoments`.
        count: the number of values per channel, over all steps.
        """
        if moments.ndim == 3:
            count //= moments.shape[0]
        name = layer.layer_name or f"lif{len(self.layers)}"
        attributes = (layer.v_threshold, layer.unregularized, layer.place)
        modes = (getattr(layer, "training", False), torch.is_grad_enabled())
        self.layers.append(LayerMoments(name, moments, count, *attributes, *modes))

    def extend(self, layer: "Recorded", moments: Tensor, count: int) -> None:
        """Add further time steps to the entry of one layer; the first ones append it.

        For layers that run once per time step. The arguments are those of `record`.
        """
        place = self._places.get(layer)
        if place is None:
            self._places[layer] = len(self.layers)
            self.record(layer, moments, count)
            return
        entry = self.layers[place]
        if moments.ndim == 3:
            total, count = torch.cat([entry.moments, moments]), entry.count
        else:
            total, count = entry.moments + moments, entry.count + count
        self.layers[place] = dataclasses.replace(entry, moments=total, count=count)

    def detach(self) -> "MembraneStats":
        """The same entries, detached from the graph, for logs."""
        layers = [
            dataclasses.replace(e, moments=e.moments.detach(), trains=False) for e in self.layers
        ]
        return MembraneStats(self.spec, layers)

    def over_time(self) -> "MembraneStats":
        """The same entries with sums over all steps, as `MomentSpec(per_step=False)` takes them."""
        spec = dataclasses.replace(self.spec, per_step=False)
        return MembraneStats(spec, [entry.over_time() for entry in self.layers], self.trains)

    def __iter__(self) -> Iterator[LayerMoments]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __getitem__(self, layer: int | str) -> LayerMoments:
        """The entry of a layer, by name or by place; `UserError` for an unknown name.

        Of a layer that ran several times: the last entry.
        """
        if isinstance(layer, int):
            return self.layers[layer]
        for entry in reversed(self.layers):
            if entry.name == layer:
                return entry
        names = [entry.name for entry in self.layers]
        raise UserError("no such layer", [unknown("stats", layer, names)])

    @property
    def quantization_error(self) -> Tensor:
        """The mean over the layers of the mean of q(u) (Eq. 9), a scalar; 0 without layers."""
        return self._mean([layer.quantization_error for layer in self.layers])

    @property
    def firing_rate(self) -> Tensor:
        """The mean over the layers, a scalar: spikes per neuron and step; 0 without layers."""
        return self._mean([layer.firing_rate for layer in self.layers])

    def _mean(self, values: list[Tensor]) -> Tensor:
        return torch.stack(values).mean() if values else torch.zeros(())


_OPEN: ContextVar[MembraneStats | None] = ContextVar("membrane_stats", default=None)
_RECOMPUTING: ContextVar[bool] = ContextVar("recomputing", default=False)


@checked(net="membrane_stats(net)", spec="membrane_stats(net, objective.spec)")
@contextmanager
def membrane_stats(
    net: nn.Module | None = None, spec: MomentSpec | None = None
) -> Iterator[MembraneStats]:
    """Record the membrane moments of every spiking layer that runs inside the block.

    net: the network whose submodules name the entries; None: "lif0", "lif1", ...
    spec: which moments to take, usually an objective's `spec`; None: those of the paper.

    Of nested blocks the innermost gets the entries. For activation checkpointing use
    `rmploss.checkpoint`. Raises `UserError` for arguments of another type.
    """
    trains = False
    if net is not None:
        if isinstance(net, nn.DataParallel):
            raise data_parallel()
        name_layers(net)
        trains = net.training and any(p.requires_grad for p in net.parameters())
    stats = MembraneStats(spec or MomentSpec(), trains=trains)
    token = _OPEN.set(stats)
    try:
        yield stats
    finally:
        _OPEN.reset(token)


def data_parallel() -> UserError:
    """The error for `torch.nn.DataParallel`, whose replicas run in threads of their own."""
    what = "runs replicas in threads: their membrane moments and running statistics are lost"
    fix = "DistributedDataParallel: torchrun --nproc-per-node 2 ..."
    return UserError("one process per GPU", [Problem("torch.nn.DataParallel", what, fix)])


def open_stats() -> MembraneStats | None:
    """The innermost open block, into which spiking layers record, or None."""
    return _OPEN.get()


def name_layers(net: nn.Module) -> None:
    """Set `layer_name` of every spiking layer to its name in the network."""
    for name, module in net.named_modules():
        if isinstance(getattr(module, "layer_name", None), str):
            name = name.replace("_orig_mod.", "").removeprefix("module.")  # compiled, DDP
            setattr(module, "layer_name", name)  # noqa: B010  a module's own types are tensors


@contextmanager
def recomputation(spec: MomentSpec | None) -> Iterator[None]:
    """Run layers again inside the block (`rmploss.checkpoint`): take their moments, record nothing.

    spec: the moments of the first run; None: it took none.
    """
    discarded = _OPEN.set(None if spec is None else MembraneStats(spec))
    running = _RECOMPUTING.set(True)
    try:
        yield
    finally:
        _RECOMPUTING.reset(running)
        _OPEN.reset(discarded)


def recomputing() -> bool:
    """True inside a `recomputation`: running statistics must not be updated a second time."""
    return _RECOMPUTING.get()
