"""Batch normalization of every time step by itself, as PLIF trains: statistics of B, H, W at t.

    y(t) = weight (x(t) - mean(t)) / sqrt(var(t) + eps) + bias

The running statistics take the steps one after the other, T updates for each batch.
"""

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.norm import TDBatchNorm2d


class StepBatchNorm2d(TDBatchNorm2d):
    """`torch.nn.BatchNorm2d` called at each step of `[T, B, C, H, W]`; no factor alpha V_th.

    In evaluation it is one affine map for all steps, and folds into a convolution. Parameters and
    buffers are those of `TDBatchNorm2d`. sync: share the statistics of a step between the ranks.
    """

    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, sync: bool = True
    ) -> None:
        super().__init__(channels, factor="none", eps=eps, momentum=momentum, sync=sync)

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """Normalize x `[T, B, C, H, W]`, each step by itself in training.

        repeats: x stands for that many equal steps. They count once, as in the authors' code,
        which normalizes a static image once and not T times.
        """
        if not self.training:
            return super().forward(x)
        # The parent's statistics are over all steps it is given: here one.
        return torch.cat([super(StepBatchNorm2d, self).forward(x_t) for x_t in x.split(1)])

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor, float | None, bool]:
        """As in the parent, whose statistics are of all steps: in training of a single one."""
        self.check(x)
        return super().operands(x)

    def check(self, x: Tensor) -> None:
        """Raise `UserError` for an x that does not fit, or that has several steps in training."""
        super().check(x)
        if self.training and x.shape[0] > 1:  # a neuron would take one statistic of all steps
            raise UserError("this norm takes steps one by one: lif(norm(x)), not lif(x, norm=norm)")
