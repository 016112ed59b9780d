"""Threshold-dependent batch normalization over time, batch and space (tdBN, Eqs. 6-7).

    x_hat = alpha V_th (x - mean) / sqrt(var + eps)                   (6)
    y     = weight x_hat + bias                                       (7)

Mean and variance are per channel and joint over T, B, H, W and, in a process group, over all ranks.
"""

from typing import Any, Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.stats import recomputing
from rmploss.tables import Table


class TDBatchNorm2d(nn.Module):
    """tdBN of `[T, B, C, H, W]`, the normalization in front of every spiking layer.

    channels: C. alpha, v_threshold: the factor of Eq. 6, dimensionless. factor: where it stands:
    "outside" multiplies the normalized value by it (the paper, Eq. 6); "gain" starts the trainable
    gain at it, the same function with another training dynamic; "none" leaves it out (the authors'
    released code: plain batch normalization over T, B, H, W). sync: share the statistics between
    the ranks of a process group, so that two ranks equal one on the same global batch.

    Parameters weight, bias and buffers running_mean, running_var have shape `[C]`; running_var is
    unbiased as in `torch.nn.BatchNorm2d`.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(
        self,
        channels: int,
        *,
        alpha: float = 1.0,
        v_threshold: float = 0.5,
        factor: Literal["outside", "gain", "none"] = "outside",
        eps: float = 1e-5,
        momentum: float = 0.1,
        sync: bool = True,
    ) -> None:
        super().__init__()
        problems = [
            Problem(f"{name} = {value!r}", "must be positive and finite", fix)
            for name, value, fix in (
                ("alpha", alpha, "the paper: 1 (Eq. 6)"),
                ("v_threshold", v_threshold, "the paper: 0.5"),
                ("eps", eps, "1e-5"),
            )
            if not 0 < value < float("inf")
        ]
        if not 0 <= momentum <= 1:
            problems.append(Problem(f"momentum = {momentum!r}", "must lie in [0, 1]", "0.1"))
        if factor not in ("outside", "gain", "none"):
            problems.append(Problem(f"factor = {factor!r}", "is unknown", "outside, gain or none"))
        if problems:
            raise UserError("bad normalization", problems)
        self.channels = channels
        self.eps = eps
        self.momentum = momentum
        self.sync = sync
        self.factor = factor
        self.scale = alpha * v_threshold if factor == "outside" else 1.0
        gain = alpha * v_threshold if factor == "gain" else 1.0
        self.weight = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """Normalize x `[T, B, C, H, W]`.

        repeats: x stands for that many equal copies along T. Mean and variance do not change, but
        the unbiased running variance does: it is the one of all copies.
        """
        if x.ndim != 5 or x.shape[2] != self.channels:
            raise UserError(
                f"x has shape {list(x.shape)}; this norm needs [T, B, {self.channels}, H, W]"
            )
        weight = self.weight * self.scale
        flat = x.flatten(0, 1)
        if not self.training:
            mean, var = self.running_mean, self.running_var
            out = F.batch_norm(flat, mean, var, weight, self.bias, False, 0.0, self.eps)
        elif self.sync and dist.is_initialized() and dist.get_world_size() > 1:
            out = self._across_ranks(flat, weight, repeats)
        else:
            out = self._alone(flat, weight, repeats)
        return out.view_as(x)

    def _alone(self, x: Tensor, weight: Tensor, repeats: int) -> Tensor:
        # batch_norm's backward holds on to the buffer it is given: hand it one of its own.
        var = self.running_var.clone()
        momentum, eps = self._momentum(), self.eps
        out = F.batch_norm(x, self.running_mean, var, weight, self.bias, True, momentum, eps)
        with torch.no_grad():
            # It made the variance unbiased for the values of x; the copies make them more.
            kept = (1 - momentum) * self.running_var
            count = x.numel() / self.channels
            self.running_var.copy_(kept + (var - kept) * _bessel(count * repeats) / _bessel(count))
        return out

    def _across_ranks(self, x: Tensor, weight: Tensor, repeats: int) -> Tensor:
        wide = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        over = (0, 2, 3)
        local = torch.full((1,), x.numel() / self.channels, dtype=wide.dtype, device=x.device)
        total = _AllReduceSum.apply(torch.cat([wide.sum(over), local]))
        count = total[-1].detach()
        mean = total[:-1] / count
        centered = wide - mean.view(1, -1, 1, 1)
        var = _AllReduceSum.apply(centered.square().sum(over)) / count
        with torch.no_grad():
            unbiased = var * _bessel(float(count) * repeats)
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self._momentum())
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self._momentum())
        gain = weight * (var + self.eps).rsqrt()
        return (centered * gain.view(1, -1, 1, 1) + self.bias.view(1, -1, 1, 1)).to(x.dtype)

    def _momentum(self) -> float:
        # A checkpointed norm runs twice on one batch; its running statistics count it once.
        return 0.0 if recomputing() else self.momentum

    def extra_repr(self) -> str:
        """Channels and the factor of Eq. 6."""
        return f"{self.channels}, factor={self.factor!r}, scale={self.scale}"


def fold(conv: nn.Conv2d, norm: TDBatchNorm2d) -> nn.Conv2d:
    """One convolution that computes `norm(conv(x))` in evaluation mode, exactly.

    weight' = weight g and bias' = (bias - mean) g + beta, with g = scale gamma / sqrt(var + eps).
    """
    with torch.no_grad():
        gain = norm.scale * norm.weight / (norm.running_var + norm.eps).sqrt()
        bias = torch.zeros_like(norm.bias) if conv.bias is None else conv.bias
        folded = nn.Conv2d(
            conv.in_channels,
            conv.out_channels,
            conv.kernel_size,  # pyright: ignore[reportArgumentType]
            conv.stride,  # pyright: ignore[reportArgumentType]
            conv.padding,  # pyright: ignore[reportArgumentType]
            conv.dilation,  # pyright: ignore[reportArgumentType]
            conv.groups,
            bias=True,
            padding_mode=conv.padding_mode,
            device=conv.weight.device,
            dtype=conv.weight.dtype,
        )
        folded.weight.copy_(conv.weight * gain.view(-1, 1, 1, 1))
        assert folded.bias is not None
        folded.bias.copy_((bias - norm.running_mean) * gain + norm.bias)
    return folded.train(conv.training)


def _bessel(count: float) -> float:
    """n / (n - 1), which makes a variance of n values unbiased; 1 for a single value."""
    return count / (count - 1) if count > 1 else 1.0


class _AllReduceSum(torch.autograd.Function):
    """The sum over all ranks; its gradient is the sum of the gradients of all ranks."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        total = grad_outputs[0].clone()
        dist.all_reduce(total)
        return total


NORMS: Table[type[nn.Module]] = Table("norm", {"tdbn": "rmploss.norm:TDBatchNorm2d"})
"""Normalizations by name."""
