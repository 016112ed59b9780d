"""Shapes of lambda(n), the weight of a regularizer over training (Eq. 12).

progress = n / N in [0, 1]: the epoch, counted from 1 as in Algorithm 1, over the number of epochs.
"""

import math
import numbers
from collections.abc import Callable

from torch import Tensor

from rmploss.errors import UserError
from rmploss.registry import Registry

Schedule = Callable[[float], float]
"""From progress n/N in [0, 1] to the shape of lambda in [0, 1], dimensionless."""


def triangle(progress: float) -> float:
    """Eq. 12: 2 n/N up to N/2, then 2 (1 - n/N). Zero at both ends, one in the middle."""
    return 2 * min(progress, 1 - progress)


def constant(progress: float) -> float:
    """1 at any progress."""
    return 1.0


def cosine(progress: float) -> float:
    """(1 + cos(pi n/N)) / 2, from one to zero; an unused option of the authors' script."""
    return (1 + math.cos(math.pi * progress)) / 2


def rising_cosine(progress: float) -> float:
    """(1 - cos(pi n/N)) / 2, from zero to one; TGO's."""
    return (1 - math.cos(math.pi * progress)) / 2


SCHEDULES: Registry[Schedule] = Registry(
    "schedule",
    {
        "triangle": "rmploss.objectives.schedules:triangle",
        "constant": "rmploss.objectives.schedules:constant",
        "cosine": "rmploss.objectives.schedules:cosine",
        "rising_cosine": "rmploss.objectives.schedules:rising_cosine",
    },
    family="schedule",
)


def evaluate(schedule: Schedule, progress: float) -> float:
    """The value of a schedule; `UserError` unless progress lies in [0, 1]."""
    number = isinstance(progress, numbers.Real) and not isinstance(progress, bool)
    if isinstance(progress, Tensor):
        number = progress.numel() == 1 and progress.is_floating_point() and not progress.is_meta
    if not number or not 0 <= progress <= 1:
        raise UserError(
            f"progress = {progress!r} must lie in [0, 1]: it is (epoch + 1) / epochs, the n / N of "
            "Eq. 12"
        )
    return schedule(progress)
