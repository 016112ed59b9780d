"""The base class of regularizers: a weight over training, and the selection of layers."""

import warnings
from abc import ABC, abstractmethod
from fnmatch import fnmatchcase
from typing import ClassVar, Self, TypedDict

import torch
from torch import Tensor

from rmploss.arguments import collect
from rmploss.entry import Untraceable, entry
from rmploss.errors import Problem, UserError, unknown
from rmploss.objectives.schedules import SCHEDULES, evaluate
from rmploss.ops.lif.moments import MomentSpec
from rmploss.registry import defaults, fits
from rmploss.stats import LayerMoments, MembraneStats


class LayerOptions(TypedDict, total=False):
    """Which layers take part: options that regularizers pass on; their defaults are here."""

    include: tuple[str, ...]
    exclude: tuple[str, ...]


class RegularizerOptions(LayerOptions, total=False):
    """The same, with the shape of lambda(n)."""

    schedule: str


class Regularizer(Untraceable, ABC):
    """lambda(n) times a function of the membrane statistics of one forward; dimensionless.

    amplitude: of lambda(n): its name in the paper, its value, and the usual value for errors.
    spec: the statistics it needs; None with `problems`.
    problems: those of the subclass, reported with those of these arguments.
    schedule: the shape of lambda(n), a name in `SCHEDULES`.
    include, exclude: patterns of the names of layers that take part ("layer1.*.lif1").

    A subclass passes the last three on: `**options: Unpack[RegularizerOptions]`, or `LayerOptions`
    where its schedule has another default. Raises `UserError`.
    """

    is_mean: ClassVar[bool] = False
    """Whether the term of a batch is the mean of those of its parts: linear in the moments."""
    _given: dict[str, object]

    def __new__(cls, *args: object, **options: object) -> Self:
        """Keep the options that were given, for `repr`."""
        made = super().__new__(cls)
        made._given = options
        return made

    def __init__(
        self,
        *,
        amplitude: tuple[str, float, str],
        spec: MomentSpec | None,
        problems: list[Problem],
        schedule: str = "constant",
        include: tuple[str, ...] = ("*",),
        exclude: tuple[str, ...] = (),
    ) -> None:
        name, value, usual = amplitude
        if not 0 <= value < float("inf"):
            problems.insert(0, Problem(f"{name} = {value!r}", "must be >= 0", usual))
        for which, patterns in (("include", include), ("exclude", exclude)):
            if not fits(patterns, tuple[str, ...]):  # of a string each letter would be a pattern
                fix = f"{which}=({patterns!r},)" if isinstance(patterns, str) else '("layer1.*",)'
                problems.append(Problem(f"{which} = {patterns!r}", "must be a tuple of names", fix))
        shape = collect(problems, lambda: SCHEDULES[schedule])
        if problems or shape is None or spec is None:
            raise UserError(f"bad {type(self).__name__}", problems)
        self.amplitude = value
        self.schedule = shape
        self.spec = spec
        self.include, self.exclude = include, exclude
        self.is_remarked = False

    def __repr__(self) -> str:
        """All options: "RMPLoss(k=0.1, p=2.0, ...)"."""
        options = defaults(type(self)) | self._given
        return f"{type(self).__name__}({', '.join(f'{n}={v!r}' for n, v in options.items())})"

    @entry
    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """The weighted term, a scalar.

        stats: of one forward, taken with `spec`, or per step where `spec` has sums over time.
        progress: n / N in [0, 1], the epoch from 1 over the number of epochs.
        """
        weight = self.weight(progress)
        value = self.value(stats)
        if not self.is_remarked and not torch.compiler.is_compiling():
            self.is_remarked = True
            for remark in self.remarks(stats):
                warnings.warn(remark, stacklevel=2)
        return weight * value

    @entry
    def weight(self, progress: float) -> float:
        """lambda(n) at progress n / N. Raises `UserError` for a progress outside of [0, 1]."""
        return self.amplitude * evaluate(self.schedule, progress)

    def value(self, stats: MembraneStats) -> Tensor:
        """The term without its weight, a scalar."""
        return self.of_layers(self._chosen(stats))

    def remarks(self, stats: MembraneStats) -> list[str]:
        """What about these layers does not fit the equations, in words; the first call warns."""
        names = [layer.name for layer in stats]
        return [
            f"exclude={pattern!r} matches no spiking layer"
            for pattern in self.exclude
            if not any(fnmatchcase(name, pattern) for name in names)
        ]

    @abstractmethod
    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """The term of the layers that take part, at least one; a scalar."""

    def _chosen(self, stats: MembraneStats) -> list[LayerMoments]:
        """The layers that take part; `UserError` if none does, or one defines no regularizer."""
        if not isinstance(stats, MembraneStats):
            what = "must be those of a block"
            fix = "with membrane_stats(net, objective.spec) as stats: ..."
            problem = Problem(f"stats = a {type(stats).__name__}", what, fix)
            raise UserError("no membrane statistics", [problem])
        if not self.spec.per_step and stats.spec.per_step:
            stats = stats.over_time()  # as another regularizer of the same forward needs them
        if stats.spec != self.spec:
            raise UserError(
                f"the membrane statistics were taken with {stats.spec}, this loss needs "
                f"{self.spec}: record with membrane_stats(net, objective.spec)"
            )
        chosen = [layer for layer in stats if self._takes(layer.name)]
        if not chosen:
            names = ", ".join(layer.name for layer in stats) or (
                "none: no spiking layer ran inside the block, in its thread. Replicas of "
                "torch.nn.DataParallel run in others: use torchrun and DistributedDataParallel"
            )
            raise UserError(
                f"no spiking layer matches include={self.include}, exclude={self.exclude} "
                f"(recorded: {names})"
            )
        refused = [
            Problem(layer.name, layer.unregularized) for layer in chosen if layer.unregularized
        ]
        if refused:
            raise UserError(f"{type(self).__name__} is not defined for these layers", refused)
        self._require_known_names([layer.name for layer in stats])
        self._require_gradient(stats, chosen)
        return chosen

    def _require_known_names(self, names: list[str]) -> None:
        """Raise `UserError` for a name that no layer has, and for patterns that include nothing.

        A pattern that excludes nothing is no mistake: ("*.lif1",) is meant for residual blocks.
        """
        problems = [
            unknown(which, pattern, names)
            for which, patterns in (("include", self.include), ("exclude", self.exclude))
            for pattern in patterns
            if not any(fnmatchcase(name, pattern) for name in names)
            and (which == "include" or not set(pattern) & set("*?["))
        ]
        if problems:
            raise UserError("no spiking layer has such a name", problems)

    def _require_gradient(self, stats: MembraneStats, chosen: list[LayerMoments]) -> None:
        """Raise `UserError` for moments without a gradient in a network that trains.

        The term would be a number that changes nothing.
        """
        if not torch.is_grad_enabled():
            return
        without = [layer for layer in chosen if not layer.moments.requires_grad]
        lost = [layer.name for layer in without if layer.trains and not layer.has_grad_mode]
        if stats.trains and len(without) == len(chosen):
            lost = [layer.name for layer in without]
        if lost:
            what = "its membrane moments have no gradient, so the term would train nothing"
            raise UserError(
                f"{type(self).__name__} has lost its gradient in a network that trains: they ran "
                "in torch.utils.checkpoint(use_reentrant=True), in torch.no_grad() or behind a "
                "detach(). Use rmploss.checkpoint(function, x), or use_reentrant=False; to look "
                "only: rmp(stats.detach(), progress)",
                [Problem(name, what) for name in lost],
            )

    def _takes(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.include) and not any(
            fnmatchcase(name, pattern) for pattern in self.exclude
        )


class MeanOverLayers(Regularizer):
    """A regularizer that is the mean over layers of a function of each layer's global moments."""

    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """The mean of the layers' terms, of moments of all ranks."""
        return torch.stack([self.of_layer(layer.of_all_ranks()) for layer in layers]).mean()

    @abstractmethod
    def of_layer(self, layer: LayerMoments) -> Tensor:
        """The term of one layer, a scalar, from the moments of the global batch."""
