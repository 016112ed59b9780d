"""RMP-Loss: pull every membrane potential towards its spike (Eqs. 8-12 of the paper).

    q(u)     = |o - u|^p                                        (8, 9)
    L_RMP    = mean of q(u) over time, layers, batch, channels, space   (10)
    L        = L_CE + lambda(n) L_RMP                           (11)
    lambda(n) = 2k n/N  up to N/2,  then 2k (1 - n/N)           (12)

The layers hand over the sums of q (the third membrane moment); the loss never sees a membrane.
"""

from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.objectives.schedules import SCHEDULES, evaluate
from rmploss.ops.moments import ERROR, MomentSpec
from rmploss.stats import LayerMoments, MembraneStats


class RMPLoss:
    """lambda(n) L_RMP of one forward, from its membrane statistics.

        rmp = RMPLoss()
        with membrane_stats(net, rmp.spec) as stats:
            logits = net(images)
        loss = cross_entropy(logits, labels) + rmp(stats, progress=epoch / epochs)

    k: amplitude of lambda(n), dimensionless; schedule: its shape, a name in `SCHEDULES`.
    p: exponent of Eq. 9. potential, detach_target: see `MomentSpec`.
    reduction: Eq. 10 is one mean over layers of unequal size. "layers" is the mean of the layers'
    means (what the authors' code does); "elements" weighs every membrane value the same.
    include, exclude: patterns of layer names ("layer1.*.lif1") that take part; the paper has all,
    the authors' code skips the inner neurons of residual blocks: exclude=("*.lif1",).
    """

    def __init__(
        self,
        *,
        k: float = 0.1,
        p: float = 2.0,
        schedule: str = "triangle",
        reduction: Literal["layers", "elements"] = "layers",
        include: tuple[str, ...] = ("*",),
        exclude: tuple[str, ...] = (),
        potential: Literal["u_pre", "input"] = "u_pre",
        detach_target: bool = True,
    ) -> None:
        problems = []
        if not 0 <= k < float("inf"):
            problems.append(Problem(f"k = {k!r}", "must be >= 0", "the paper uses 0.1 (Eq. 12)"))
        if reduction not in ("layers", "elements"):
            problems.append(Problem(f"reduction = {reduction!r}", 'is "layers" or "elements"'))
        for name, patterns in (("include", include), ("exclude", exclude)):
            if isinstance(patterns, str):  # each letter would be a pattern, "*" among them
                where = f"{name} = {patterns!r}"
                problems.append(Problem(where, "must be a tuple", f"{name}=({patterns!r},)"))
        if problems:
            raise UserError("bad RMP-Loss", problems)
        self.k = k
        self.schedule = SCHEDULES[schedule]
        self.reduction = reduction
        self.include = include
        self.exclude = exclude
        self.spec = MomentSpec(p=p, potential=potential, detach_target=detach_target)

    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """lambda(n) L_RMP, a scalar; progress = n / N, the epoch over the number of epochs."""
        return self.weight(progress) * self.value(stats)

    def weight(self, progress: float) -> float:
        """lambda(n) of Eq. 12 at progress n / N."""
        return self.k * evaluate(self.schedule, progress)

    def value(self, stats: MembraneStats) -> Tensor:
        """L_RMP of Eq. 10, a scalar, without its weight."""
        layers = self._layers(stats)
        if self.reduction == "layers":
            return torch.stack([layer.quantization_error for layer in layers]).mean()
        total = torch.stack([layer.moments[ERROR].sum() for layer in layers]).sum()
        return total / sum(layer.elements for layer in layers)

    def _layers(self, stats: MembraneStats) -> list[LayerMoments]:
        if stats.spec != self.spec:
            raise UserError(
                f"the membrane statistics were taken with {stats.spec}, this loss needs "
                f"{self.spec}: record with membrane_stats(net, rmp.spec)"
            )
        chosen = [layer for layer in stats if self._takes(layer.name)]
        if not chosen:
            names = ", ".join(layer.name for layer in stats) or "none: no spiking layer ran"
            raise UserError(
                f"no spiking layer matches include={self.include}, exclude={self.exclude} "
                f"(recorded: {names})"
            )
        return chosen

    def _takes(self, name: str) -> bool:
        return any(fnmatchcase(name, pattern) for pattern in self.include) and not any(
            fnmatchcase(name, pattern) for pattern in self.exclude
        )
