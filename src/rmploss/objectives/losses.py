"""Classification losses: functions of the outputs of every time step and the labels.

    loss(outputs, logits, labels)    outputs [T, B, K], logits [B, K] read out of them, labels [B]

The total loss is a classification loss, an auxiliary loss over the time steps (auxiliary.py), and
a weighted regularizer; they combine freely. Every classification loss can smooth the labels.
"""

import math
from typing import Any, ClassVar, Protocol

import torch.nn.functional as F
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.objectives.inputs import (
    cross_entropy,
    is_soft,
    require_logits,
    require_outputs,
    require_soft,
)
from rmploss.objectives.smoothing import require_smoothing, smooth_one_hot, smoothing_problems
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
    """CE(logits, labels), line 5 of Algorithm 1.

    smoothing: of the labels, in [0, 1), dimensionless (smoothing.py).

    Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(self, *, smoothing: float = 0.0) -> None:
        require_smoothing("cross-entropy", smoothing)
        self.smoothing = smoothing

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy of the logits; labels can be probabilities `[B, K]` too."""
        soft = is_soft(labels, logits)
        (require_soft if soft else require_logits)(logits, labels)
        wide = at_least_single(logits)
        return cross_entropy(wide, labels.to(wide.dtype) if soft else labels, self.smoothing)


class TET:
    """TET (Deng et al., ICLR 2022): the cross-entropy of every time step.

        L = (1 - lambda) 1/T sum_t CE(O(t), y) + lambda mean (O - phi)^2

    weight: lambda in [0, 1]; the paper uses 0.05 on CIFAR, 0.001 on event data and ImageNet.
    target: phi, the threshold, the same for all classes; the paper uses 1.
    smoothing: of the labels, in [0, 1) (smoothing.py).

    Dimensionless. Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(
        self, *, weight: float = 0.05, target: float = 1.0, smoothing: float = 0.0
    ) -> None:
        problems = smoothing_problems(smoothing)
        if not math.isfinite(target):
            problems.insert(0, Problem(f"target = {target!r}", "must be finite", "the paper: 1"))
        if not 0 <= weight <= 1:
            problem = Problem(f"weight = {weight!r}", "must lie in [0, 1]", "the paper: 0.05")
            problems.insert(0, problem)
        if problems:
            raise UserError("bad TET loss", problems)
        self.weight, self.target, self.smoothing = weight, target, smoothing

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean cross-entropy of the steps, plus the distance to the target."""
        require_outputs(outputs, labels)
        outputs = at_least_single(outputs)
        every = every_step(outputs, labels, self.smoothing)
        return (1 - self.weight) * every + self.weight * (outputs - self.target).square().mean()


def every_step(outputs: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """1/T sum_t CE(O(t), y), the mean over the samples, a scalar.

    outputs: O `[T, B, K]`.
    labels: y `[B]`.
    smoothing: of the labels, in [0, 1).
    """
    require_outputs(outputs, labels)
    steps = labels.repeat(outputs.shape[0])
    return cross_entropy(outputs.flatten(0, 1), steps, smoothing)


class MeanSquaredError:
    """MSE of logits and one-hot labels; STBP and PLIF apply it to rates of voting neurons.

    per_step: True takes the MSE of every step's outputs, the formula of the PLIF paper. Its code,
        like STBP's and our default, takes the mean of the outputs first.
    smoothing: of the labels, in [0, 1), dimensionless (smoothing.py).

    Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(self, *, per_step: bool = False, smoothing: float = 0.0) -> None:
        require_smoothing("mean squared error", smoothing)
        self.per_step, self.smoothing = per_step, smoothing

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The mean over samples and classes, and over steps with `per_step`."""
        if self.per_step:
            require_outputs(outputs, labels)
        else:
            require_logits(logits, labels)
        wide = at_least_single(outputs if self.per_step else logits)
        target = smooth_one_hot(labels, wide.shape[-1], self.smoothing, wide.dtype)
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
    family="loss",
)
