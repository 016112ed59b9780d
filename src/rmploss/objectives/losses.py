"""Classification losses: functions of the outputs of every time step and the labels.

    loss(outputs, logits, labels)    outputs [T, B, K], logits [B, K] read out of them, labels [B]

The total loss is a classification loss plus a weighted regularizer; any pair can be combined.
"""

from typing import Any, ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.ops import at_least_single
from rmploss.registry import Registry


class Loss(Protocol):
    """A classification loss; needs: the kind of outputs it takes (`SpikingNetwork.gives`)."""

    needs: ClassVar[str]

    def __call__(self, outputs: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over the samples of a batch, a scalar, dimensionless.

        outputs: `[T, B, K]`, or what `needs` names.
        logits: `[B, K]`.
        labels: `[B]`.
        """
        ...


class CrossEntropy:
    """CE(logits, labels), line 5 of Algorithm 1."""

    needs: ClassVar[str] = "outputs"

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of the logits."""
        return F.cross_entropy(at_least_single(logits), labels)


class TET:
    """TET (Deng et al., ICLR 2022): the cross-entropy of every time step.

        L = (1 - lambda) 1/T sum_t CE(O(t), y) + lambda mean (O - phi)^2

    weight: lambda in [0, 1]; the paper uses 0.05 on CIFAR, 0.001 on event data and ImageNet.
    target: phi, the threshold, the same for all classes; the paper uses 1.

    Dimensionless. Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    def __init__(self, *, weight: float = 0.05, target: float = 1.0) -> None:
        if not 0 <= weight <= 1:
            problem = Problem(f"weight = {weight!r}", "must lie in [0, 1]", "the paper: 0.05")
            raise UserError("bad TET loss", [problem])
        self.weight, self.target = weight, target

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of the steps, plus the distance to the target."""
        outputs = at_least_single(outputs)
        T = outputs.shape[0]
        every = F.cross_entropy(outputs.flatten(0, 1), labels.repeat(T))
        return (1 - self.weight) * every + self.weight * (outputs - self.target).square().mean()


class MeanSquaredError:
    """MSE of logits and one-hot labels; STBP and PLIF apply it to rates of voting neurons.

    per_step: True takes the MSE of every step's outputs, the formula of the PLIF paper. Its code,
        like STBP's and our default, takes the mean of the outputs first.
    """

    needs: ClassVar[str] = "outputs"

    def __init__(self, *, per_step: bool = False) -> None:
        self.per_step = per_step

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over samples and classes, and over steps with `per_step`."""
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
