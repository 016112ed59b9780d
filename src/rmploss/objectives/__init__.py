"""Regularizers of the membrane: one file per paper, one line each in `OBJECTIVES`.

A regularizer is a function of the membrane statistics of a forward and of progress n / N; its
`spec` names the statistics it needs. The classification losses are in `LOSSES` (losses.py), the
losses over the time steps that are added to them in `AUXILIARIES` (auxiliary.py).
"""

from typing import Protocol

from torch import Tensor

from rmploss.objectives.auxiliary import AUXILIARIES
from rmploss.objectives.losses import LOSSES, Loss
from rmploss.objectives.of_tensors import rmp_loss
from rmploss.objectives.rmp import RMPLoss
from rmploss.objectives.schedules import SCHEDULES, Schedule
from rmploss.ops.lif.moments import MomentSpec
from rmploss.registry import Registry
from rmploss.stats import MembraneStats

__all__ = [
    "AUXILIARIES",
    "LOSSES",
    "OBJECTIVES",
    "SCHEDULES",
    "Loss",
    "Objective",
    "RMPLoss",
    "Schedule",
    "rmp_loss",
]


class Objective(Protocol):
    """A regularizer of the membrane; all values are dimensionless.

    It is `weight(progress) * value(stats)`, or the sum of this over the objectives in its attribute
    `terms`: the engine computes both factors apart, so that a captured step can change lambda(n).
    """

    @property
    def spec(self) -> MomentSpec | None:
        """The statistics it needs, or None."""
        ...

    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """The weighted term, a scalar to add to the classification loss.

        stats: the membrane statistics of one forward, taken with `spec`.
        progress: n / N in [0, 1].
        """
        ...

    def weight(self, progress: float) -> float:
        """lambda(n): the weight at progress n / N."""
        ...

    def value(self, stats: MembraneStats) -> Tensor:
        """The term without its weight, a scalar."""
        ...


OBJECTIVES: Registry[type[Objective]] = Registry(
    "objective",
    {
        "none": "rmploss.objectives.none:NoRegularizer",
        "rmp": "rmploss.objectives.rmp:RMPLoss",
        "im": "rmploss.objectives.im:IMLoss",
        "recdis": "rmploss.objectives.recdis:RecDisLoss",
        "mpd_sgr": "rmploss.objectives.mpd_sgr:MPDSGRLoss",
        "tgo": "rmploss.objectives.tgo:TGOLoss",
        "several": "rmploss.objectives.several:SeveralRegularizers",
    },
    family="objective",
)
