"""The weighted sum of an objective's terms, with weights that may be tensors on a device.

    L_reg = sum_i lambda_i(n) L_i

An objective is one term, or has several in `terms`. In a captured step lambda_i(n) must not be a
number of Python, which a CUDA graph would repeat for ever; the engine passes tensors that it fills.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmploss.stats import MembraneStats


def terms_of(objective: Any) -> tuple[Any, ...]:
    """The objectives of which an objective is the weighted sum: itself, or its `terms`."""
    return tuple(getattr(objective, "terms", (objective,)))


def weights_of(objective: Any, progress: float) -> tuple[float, ...]:
    """lambda_i(n) of every term at progress n / N; dimensionless."""
    return tuple(term.weight(progress) for term in terms_of(objective))


def weighted(objective: Any, stats: MembraneStats, weights: Sequence[float | Tensor]) -> Tensor:
    """The objective at given weights, a scalar; `objective(stats, progress)` at `weights_of`.

    objective: its terms have a `value(stats)` each.
    stats: the membrane statistics of one forward.
    weights: one per term: a number, or a 0-d tensor on the device of the statistics.
    """
    values = [term.value(stats) for term in terms_of(objective)]
    scaled = [
        (weight.to(value.dtype) if isinstance(weight, Tensor) else weight) * value
        for weight, value in zip(weights, values, strict=True)
    ]
    return scaled[0] if len(scaled) == 1 else torch.stack(scaled).sum()
