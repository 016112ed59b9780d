"""Losses of the classification: functions of the outputs of every time step and the labels.

    loss(outputs, logits, labels)    outputs [T, B, K], logits [B, K] read out of them, labels [B]

A loss is one part of the objective, a regularizer of the membrane the other; any two go together.
"""

from typing import Any, ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.ops import at_least_single
from rmploss.registry import Registry


class Loss(Protocol):
    """What a loss offers. needs: what a network must give for it (`SpikingNetwork.gives`)."""

    needs: ClassVar[str]

    def __call__(self, outputs: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """A scalar, dimensionless: of a batch, the mean over its samples."""
        ...


class CrossEntropy:
    """CE(logits, labels), line 5 of Algorithm 1: of the outputs read out over time."""

    needs: ClassVar[str] = "outputs"

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of the logits."""
        return F.cross_entropy(at_least_single(logits), labels)


class TET:
    """TET (Deng et al., ICLR 2022): the cross-entropy of every time step.

        L = (1 - lambda) 1/T sum_t CE(O(t), y) + lambda mean (O - phi)^2

    weight: lambda; target: phi, the threshold, for all classes alike. The paper: 0.05 and 1 on
    CIFAR, 0.001 on event data and ImageNet; dimensionless.
    """

    needs: ClassVar[str] = "outputs"

    def __init__(self, *, weight: float = 0.05, target: float = 1.0) -> None:
        if not 0 <= weight <= 1:
            problem = Problem(f"weight = {weight!r}", "must lie in [0, 1]", "the paper: 0.05")
            raise UserError("bad TET loss", [problem])
        self.weight, self.target = weight, target

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the steps, and the pull towards the target."""
        outputs = at_least_single(outputs)
        T = outputs.shape[0]
        every = F.cross_entropy(outputs.flatten(0, 1), labels.repeat(T))
        return (1 - self.weight) * every + self.weight * (outputs - self.target).square().mean()


class MeanSquaredError:
    """MSE of the logits and the one-hot labels: STBP and PLIF on the rates of voting neurons.

    per_step: of the outputs of every step instead of their mean (the formula of the PLIF paper;
    its code, like STBP's, takes the mean first, and so do we).
    """

    needs: ClassVar[str] = "outputs"

    def __init__(self, *, per_step: bool = False) -> None:
        self.per_step = per_step

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over samples and classes (and steps)."""
        wide = at_least_single(outputs if self.per_step else logits)
        target = F.one_hot(labels, wide.shape[-1]).to(wide.dtype)
        return F.mse_loss(wide, target.expand_as(wide))


LOSSES: Registry[type[Loss]] = Registry(
    "loss",
    {
        "ce": "rmploss.objectives.losses:CrossEntropy",
        "tet": "rmploss.objectives.losses:TET",
        "mse": "rmploss.objectives.losses:MeanSquaredError",
        "joint": "rmploss.objectives.joint:JointLoss",
        "van_rossum": "rmploss.objectives.van_rossum:VanRossum",
    },
)
