"""Batch normalization of each time step, as in PLIF: statistics over B, H, W at t.

    y(t) = weight (x(t) - mean(t)) / sqrt(var(t) + eps) + bias

A batch updates the running statistics T times, step by step.
"""

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.entry import entry
from rmploss.errors import UserError
from rmploss.norm import Operands, TDBatchNorm2d


class StepBatchNorm2d(TDBatchNorm2d):
    """`torch.nn.BatchNorm2d` applied to each step of `[T, B, C, H, W]`; no factor alpha V_th.

    channels, eps, momentum: see `TDBatchNorm2d`.
    sync: share the statistics of a step between the ranks.

    In evaluation mode it is one affine map for all steps, which folds into a convolution. Raises
    `UserError`.
    """

    counts_repeats = False

    @checked()
    def __init__(
        self, channels: int, *, eps: float = 1e-5, momentum: float = 0.1, sync: bool = True
    ) -> None:
        super().__init__(channels, factor="none", eps=eps, momentum=momentum, sync=sync)

    @entry
    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """Normalize x `[T, B, C, H, W]`; in training each step with its own statistics.

        repeats: ignored: equal steps count once, as in the authors' code, which normalizes a static
            image once and not T times.
        """
        if not self.training:
            return super().forward(x)
        # The parent's statistics are over all steps of its input: here one.
        return torch.cat([super(StepBatchNorm2d, self).forward(x_t) for x_t in x.split(1)])

    def operands(self, x: Tensor) -> Operands:
        """As in the parent, whose statistics are of all steps: in training of a single one."""
        self.check(x)
        return super().operands(x)

    def check(self, x: Tensor) -> None:
        """Raise `UserError` for an x of another shape, or of several steps in training."""
        super().check(x)
        if self.training and x.shape[0] > 1:  # a fused layer has one statistic for all steps
            raise UserError("this norm takes single steps: lif(norm(x)), not lif(x, norm=norm)")
