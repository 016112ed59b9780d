"""RMP-Loss: pull each membrane potential towards its spike (Eqs. 8-12 of the paper).

    q(u)     = |o - u|^p                                        (8, 9)
    L_RMP    = mean of q(u) over time, layers, batch, channels, space   (10)
    L        = L_CE + lambda(n) L_RMP                           (11)
    lambda(n) = 2k n/N  up to N/2,  then 2k (1 - n/N)           (12)

The layers sum q (the third membrane moment), so the loss needs no membrane.
"""

from typing import ClassVar, Literal, Unpack

from torch import Tensor

from rmploss.arguments import checked, collect
from rmploss.errors import Problem
from rmploss.objectives.regularizer import LayerOptions, Regularizer
from rmploss.ops.lif.moments import ERROR, MomentSpec
from rmploss.stats import LayerMoments, MembraneStats, weighted_sum

TARGET_THRESHOLD = 0.5
"""The threshold midway between the targets of Eq. 8."""


class RMPLoss(Regularizer):
    """lambda(n) L_RMP of one forward (Eqs. 10-12), from its membrane statistics.

        rmp = RMPLoss()
        with membrane_stats(net, rmp.spec) as stats:
            logits = net(images)
        loss = cross_entropy(logits, labels) + rmp(stats, progress=(epoch + 1) / epochs)

    k: amplitude of lambda(n), dimensionless.
    p: exponent of Eq. 9.
    schedule: the shape of lambda(n), a name in `SCHEDULES`.
    reduction: of Eq. 10 over layers of unequal size: "layers" is the mean of the layers' means, as
        in the authors' code; "elements" gives every membrane value the same weight.
    include, exclude: patterns of the names of layers that take part ("layer1.*.lif1"). The paper
        includes all; the authors' code excludes the inner neurons of residual blocks, ("*.lif1",).
    potential, detach_target: see `MomentSpec`.

    Raises `UserError`.
    """

    is_mean: ClassVar[bool] = True

    @checked(**{"": "RMPLoss(k=0.1)", "weight": "k=0.1", "lambda_": "k=0.1", "lamda": "k=0.1"})
    def __init__(
        self,
        *,
        k: float = 0.1,
        p: float = 2.0,
        schedule: str = "triangle",
        reduction: Literal["layers", "elements"] = "layers",
        potential: Literal["u_pre", "input"] = "u_pre",
        detach_target: bool = True,
        **layers: Unpack[LayerOptions],
    ) -> None:
        problems: list[Problem] = []
        spec = collect(
            problems, lambda: MomentSpec(p=p, potential=potential, detach_target=detach_target)
        )
        if reduction not in ("layers", "elements"):
            problems.append(Problem(f"reduction = {reduction!r}", 'is "layers" or "elements"'))
        super().__init__(
            amplitude=("k", k, "the paper uses 0.1 (Eq. 12)"),
            spec=spec,
            problems=problems,
            schedule=schedule,
            **layers,
        )
        self.reduction = reduction

    def remarks(self, stats: MembraneStats) -> list[str]:
        """Among others layers whose threshold is not 1/2, midway between the targets of Eq. 8."""
        others: dict[float, list[str]] = {}
        for layer in self._chosen(stats):
            if layer.v_threshold != TARGET_THRESHOLD:
                others.setdefault(layer.v_threshold, []).append(layer.name)
        return super().remarks(stats) + [
            f"RMP-Loss pulls membranes to 0 and 1 (Eq. 8), but {', '.join(names)} fire at "
            f"v_threshold = {threshold}, which is not midway: "
            + (
                "a membrane that fires is pulled to its threshold or below it"
                if threshold >= 1
                else "a membrane near the threshold is pulled to the farther target"
            )
            for threshold, names in others.items()
        ]

    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """L_RMP of Eq. 10."""
        if self.reduction == "layers":
            sizes = [layer.elements * len(layers) for layer in layers]
        else:
            sizes = [sum(layer.elements for layer in layers)] * len(layers)
        return weighted_sum(layers, ERROR, [1 / size for size in sizes])
