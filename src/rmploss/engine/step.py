"""One step of training: the body of the paper's Algorithm 1."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.objectives import Objective
from rmploss.ops import at_least_single
from rmploss.stats import MembraneStats, membrane_stats

Precision = Callable[[], AbstractContextManager[object]]
"""Makes the autocast block of a forward."""


@dataclass(frozen=True)
class Terms:
    """What a step saw, as float64 sums over its samples `[4]`, so that steps and ranks add up.

    The rows: cross-entropy, regularizer without its weight, correct answers, samples.
    """

    sums: Tensor

    @staticmethod
    def zero() -> "Terms":
        """Nothing seen yet."""
        return Terms(torch.zeros(4, dtype=torch.float64))

    def __add__(self, other: "Terms") -> "Terms":
        return Terms(self.sums + other.sums)

    def means(self) -> dict[str, float]:
        """Per sample: loss terms (dimensionless) and accuracy in percent."""
        ce, regularizer, correct, count = self.sums.tolist()
        count = max(count, 1.0)
        return {
            "train_ce": ce / count,
            "train_regularizer": regularizer / count,
            "train_accuracy": 100 * correct / count,
        }


def forward_backward(
    net: nn.Module,
    objective: Objective,
    images: Tensor,
    labels: Tensor,
    *,
    progress: float,
    precision: Precision = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Terms:
    """Lines 3-8 of Algorithm 1: forward, the two losses, backward into the parameters' `grad`.

    images: `[B, C, H, W]` or `[T, B, C, H, W]`; labels: `[B]`; progress: n / N of Eq. 12; scale:
    is applied to the loss before backward (loss scaling, a share of an accumulated batch).
    """
    spec = objective.spec
    with precision(), membrane_stats(spec=spec) if spec else nullcontext(MembraneStats()) as stats:
        logits = net(images)  # line 4
    ce = F.cross_entropy(at_least_single(logits), labels)  # line 5
    regularizer = objective.value(stats)  # line 6
    loss = ce + objective.weight(progress) * regularizer  # line 7, Eq. 11
    scale(loss).backward()  # line 8
    with torch.no_grad():
        count = len(labels)
        correct = (logits.argmax(1) == labels).sum()
        rows = (ce * count, regularizer * count, correct, torch.tensor(count))
        return Terms(torch.stack([row.detach().double().cpu() for row in rows]))
