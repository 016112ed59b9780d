"""One step of training: the body of the paper's Algorithm 1."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from rmploss.objectives import Loss, Objective
from rmploss.objectives.losses import CrossEntropy
from rmploss.stats import MembraneStats, membrane_stats

CROSS_ENTROPY = CrossEntropy()
Precision = Callable[[], AbstractContextManager[object]]
"""Returns the autocast context of a forward."""


@dataclass(frozen=True)
class Terms:
    """Sums over the samples of a step, which add up over steps and ranks.

    sums: float64 `[4]`: loss, weighted regularizer, correct answers, samples.
    """

    sums: Tensor

    @staticmethod
    def zero() -> "Terms":
        """The sums of no samples."""
        return Terms(torch.zeros(4, dtype=torch.float64))

    def __add__(self, other: "Terms") -> "Terms":
        return Terms(self.sums + other.sums)

    def means(self) -> dict[str, float]:
        """The means per sample: loss terms (dimensionless) and accuracy in percent."""
        loss, regularizer, correct, count = self.sums.tolist()
        count = max(count, 1.0)
        return {
            "train_loss": loss / count,
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
    loss: Loss = CROSS_ENTROPY,
    precision: Precision = nullcontext,
    scale: Callable[[Tensor], Tensor] = lambda loss: loss,
) -> Terms:
    """Lines 3-8 of Algorithm 1: forward, the two losses, backward into the parameters' `grad`.

    net: a `SpikingNetwork`, or one inside `DistributedDataParallel`.
    objective: the regularizer.
    images: `[B, C, H, W]` or `[T, B, C, H, W]`.
    labels: `[B]`.
    progress: n / N of Eq. 12.
    loss: the classification loss.
    precision: returns the autocast context of the forward.
    scale: applied to the total before backward (loss scaling, the share of a micro-batch).
    """
    spec = objective.spec
    with precision(), membrane_stats(spec=spec) if spec else nullcontext(MembraneStats()) as stats:
        outputs = net(images, over_time=True)
        network: Any = net.module if isinstance(net, DistributedDataParallel) else net
        logits = network.readout(outputs)  # line 4
    classification = loss(outputs, logits, labels)  # line 5
    regularizer = objective(stats, progress)  # line 6, with its weight
    total = classification + regularizer  # line 7, Eq. 11
    scale(total).backward()  # line 8
    with torch.no_grad():
        count = len(labels)
        correct = (logits.argmax(1) == labels).sum()
        rows = (classification * count, regularizer * count, correct, torch.tensor(count))
        return Terms(torch.stack([row.detach().double().cpu() for row in rows]))
