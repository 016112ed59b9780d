"""tdBN as equations (Eqs. 6-7): the module, the reference and the fused layers all have them here.

    x_hat = alpha V_th (x - mean) / sqrt(var + eps)                    (6)
    y     = weight x_hat + bias                                        (7)

With gain = weight alpha V_th / sqrt(var + eps) that is y = (x - mean) gain + bias. Mean and
variance are per channel and joint over time, batch, space and, in a process group, all ranks.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmploss.ops.collectives import all_gather, ranks


def statistics(x: Tensor, sync: bool) -> tuple[Tensor, Tensor]:
    """Mean and biased variance `[C]` of x `[T, B, C, ...]`; sync: of all ranks' x."""
    over = [dim for dim in range(x.ndim) if dim != 2]
    mean, var = x.mean(over), x.var(over, correction=0)
    if ranks(sync) > 1:
        count = torch.full_like(mean, x.numel() / x.shape[2])
        mean, var, _ = over_ranks(torch.stack([mean, var, count]))
    return mean, var


class Running(NamedTuple):
    """The running statistics of a norm, and how a batch changes them.

    mean, var: `[C]`; the variance is unbiased.
    momentum: the share of the batch, in [0, 1].
    values: the number of values per channel of the batch, equal steps and all ranks included.
    """

    mean: Tensor
    var: Tensor
    momentum: float
    values: int

    def update(self, mean: Tensor, var: Tensor) -> None:
        """By mean and biased variance `[C]` of the batch."""
        bessel = self.values / (self.values - 1) if self.values > 1 else 1.0
        with torch.no_grad():
            self.mean.lerp_(mean.to(self.mean.dtype), self.momentum)
            self.var.lerp_((var * bessel).to(self.var.dtype), self.momentum)


def over_ranks(own: Tensor) -> Tensor:
    """Mean, biased variance and count `[3, C]` of all ranks' values, from those of each rank.

    Chan's rule about the first rank's mean, in the order of the ranks: the same bits on each.
    """
    mean, var, count = all_gather(own).unbind(1)  # [ranks, C] each
    total = count.sum(0)
    apart = mean - mean[0]
    center = (count * apart).sum(0) / total
    spread = (count * (var + (apart - center).square())).sum(0)
    return torch.stack([mean[0] + center, spread / total, total])


def gain(weight: Tensor, var: Tensor, eps: float) -> Tensor:
    """The factor `[C]` of Eqs. 6-7; weight: with alpha V_th."""
    return weight * (var + eps).rsqrt()


def normalize(x: Tensor, mean: Tensor | None, gain: Tensor | None, bias: Tensor | None) -> Tensor:
    """(x - mean) gain + bias of x `[T, B, C, ...]`; mean, gain, bias: `[C]`, None: 0, 1, 0."""
    if mean is not None:
        x = x - per_channel(mean, x)
    if gain is not None:
        x = x * per_channel(gain, x)
    return x if bias is None else x + per_channel(bias, x)


def per_channel(value: Any, x: Tensor) -> Any:
    """A tensor `[C]` in the shape that broadcasts against one step of x `[T, B, C, ...]`."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.view(-1, *[1] * (x.ndim - 3))
    return value
