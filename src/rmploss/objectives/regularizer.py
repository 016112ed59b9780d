"""The base class of regularizers: a weight over training, and the selection of layers."""

from abc import ABC, abstractmethod
from fnmatch import fnmatchcase

from torch import Tensor

from rmploss.arguments import collect
from rmploss.errors import Problem, UserError
from rmploss.objectives.schedules import SCHEDULES, evaluate
from rmploss.ops.lif.moments import MomentSpec
from rmploss.registry import fits
from rmploss.stats import LayerMoments, MembraneStats


class Regularizer(ABC):
    """lambda(n) times a function of the membrane statistics of one forward; dimensionless.

    amplitude: of lambda(n): its name in the paper, its value, and the usual value for errors.
    schedule: the shape of lambda(n), a name in `SCHEDULES`.
    spec: the statistics it needs; None with `problems`.
    include, exclude: patterns of the names of layers that take part ("layer1.*.lif1").
    problems: those of the subclass, reported with those of these arguments.

    Raises `UserError`.
    """

    def __init__(
        self,
        *,
        amplitude: tuple[str, float, str],
        schedule: str,
        spec: MomentSpec | None,
        include: tuple[str, ...],
        exclude: tuple[str, ...],
        problems: list[Problem],
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

    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """The weighted term, a scalar.

        stats: of one forward, taken with `spec`.
        progress: n / N in [0, 1], the epoch from 1 over the number of epochs.
        """
        return self.weight(progress) * self.value(stats)

    def weight(self, progress: float) -> float:
        """lambda(n) at progress n / N. Raises `UserError` for a progress outside of [0, 1]."""
        return self.amplitude * evaluate(self.schedule, progress)

    def value(self, stats: MembraneStats) -> Tensor:
        """The term without its weight, a scalar."""
        return self.of_layers(self._chosen(stats))

    @abstractmethod
    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """The term of the layers that take part, at least one; a scalar."""

    def _chosen(self, stats: MembraneStats) -> list[LayerMoments]:
        """The layers that take part; `UserError` if none does, or one defines no regularizer."""
        if stats.spec != self.spec:
            raise UserError(
                f"the membrane statistics were taken with {stats.spec}, this loss needs "
                f"{self.spec}: record with membrane_stats(net, objective.spec)"
            )
        chosen = [layer for layer in stats if self._takes(layer.name)]
        if not chosen:
            names = ", ".join(layer.name for layer in stats) or "none: no spiking layer ran"
            raise UserError(
                f"no spiking layer matches include={self.include}, exclude={self.exclude} "
                f"(recorded: {names})"
            )
        refused = [
            Problem(layer.name, layer.unregularized) for layer in chosen if layer.unregularized
        ]
        if refused:
            raise UserError(f"{type(self).__name__} is not defined for these layers", refused)
        return chosen

    def _takes(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.include) and not any(
            fnmatchcase(name, pattern) for pattern in self.exclude
        )
