"""Threshold-dependent batch normalization over time, batch and space (tdBN, Eqs. 6-7).

    x_hat = alpha V_th (x - mean) / sqrt(var + eps)                   (6)
    y     = weight x_hat + bias                                       (7)

Mean and variance are per channel and joint over T, B, H, W and, in a process group, over all ranks.
"""

from typing import ClassVar, Literal, NamedTuple, NoReturn

import torch
from torch import Tensor, nn

from rmploss.arguments import checked
from rmploss.conv import SpikeConv2d
from rmploss.entry import Untraceable, entry
from rmploss.errors import Problem, UserError
from rmploss.ops import at_least_single, check_current
from rmploss.ops.collectives import ranks
from rmploss.ops.lif import tdbn as equations
from rmploss.registry import Registry
from rmploss.sizes import room_problems
from rmploss.stats import data_parallel, recomputing


class Operands(NamedTuple):
    """What the LIF operation computes a norm from.

    gain, bias: `[C]`, or None for 1 and 0.
    eps: with it the statistics are those of the input; None: they are part of gain and bias.
    sync: share the statistics between the ranks.
    scale: a factor of the gain, alpha V_th of Eq. 6.
    """

    gain: Tensor | None
    bias: Tensor | None
    eps: float | None
    sync: bool
    scale: float


class TDBatchNorm2d(Untraceable, nn.Module):
    """tdBN of `[T, B, C, H, W]` (Eqs. 6-7), the normalization before every spiking layer.

    channels: C.
    alpha, v_threshold: the factor alpha V_th of Eq. 6, dimensionless.
    factor: "outside" multiplies the normalized value by it (the paper, Eq. 6); "gain" initializes
        the trainable gain with it, the same function with another training dynamic; "none" leaves
        it out (the authors' released code: batch normalization over T, B, H, W).
    eps: added to the variance, dimensionless.
    momentum: the weight of a new batch in the running statistics, in [0, 1].
    sync: share the statistics between the ranks of a process group, so that two ranks equal one
        rank on the same global batch.

    Parameters weight, bias and buffers running_mean, running_var have shape `[C]`; running_var is
    unbiased as in `torch.nn.BatchNorm2d`. first_gain is the gain of a new norm. Raises `UserError`.
    """

    counts_repeats: ClassVar[bool] = True
    """Whether equal steps count as often as they are shown, in the unbiased running variance."""
    running_mean: Tensor
    running_var: Tensor

    @checked(
        affine="nothing: weight and bias are always there",
        track_running_stats="nothing: they are always tracked",
        channels="TDBatchNorm2d(64)",
        factor="outside, gain or none",
    )
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
        if channels < 1:
            problems.insert(0, Problem(f"channels = {channels!r}", "must be at least 1", "64"))
        problems += room_problems(f"channels = {channels}", channels, "64")
        if not 0 <= momentum <= 1:
            problems.append(Problem(f"momentum = {momentum!r}", "must lie in [0, 1]", "0.1"))
        if problems:
            raise UserError("bad normalization", problems)
        self.channels = channels
        self.eps = eps
        self.momentum = momentum
        self.sync = sync
        self.factor = factor
        self.scale = alpha * v_threshold if factor == "outside" else 1.0
        gain = alpha * v_threshold if factor == "gain" else 1.0
        self.first_gain = self.scale * gain
        self.weight = nn.Parameter(torch.full((channels,), gain))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    @entry
    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """Normalize x `[T, B, C, H, W]`.

        repeats: x is one of that many equal copies along T. Only the unbiased running variance
            depends on it: it is the variance of all copies.
        """
        self.check(x)
        if not isinstance(repeats, int) or repeats < 1:
            raise UserError(f"repeats = {repeats!r} must be a whole number, at least 1")
        if not self.training:
            return equations.normalize(x, None, *self.affine()).to(x.dtype)
        # With T B = 1 PyTorch's kernel misreads a gradient whose memory layout is not x's.
        if ranks(self.sync) > 1 or x.shape[0] * x.shape[1] == 1:
            return self._by_equations(x, repeats)
        return self._by_kernel(x, repeats)

    def _replicate_for_data_parallel(self) -> NoReturn:
        raise data_parallel()

    def rescale(self, factor: float) -> None:
        """Multiply alpha by a factor (STBP-tdBN: 1/sqrt(n) before the sum of n branches).

        Raises `UserError` with factor="none".
        """
        if not (isinstance(factor, int | float) and 0 < factor < float("inf")):
            problem = Problem(f"factor = {factor!r}", "must be positive and finite", "0.5 ** 0.5")
            raise UserError("bad factor of alpha", [problem])
        if self.factor == "outside":
            self.scale *= factor
        elif self.factor == "gain":
            with torch.no_grad():
                self.weight.mul_(factor)
        else:
            problem = Problem("factor = 'none'", "leaves no alpha to change", "outside or gain")
            raise UserError("a norm without the factor of Eq. 6 cannot be rescaled", [problem])
        self.first_gain *= factor

    def check(self, x: Tensor) -> None:
        """Raise `UserError` unless x is `[T, B, C, H, W]` with this norm's C, type and device."""
        check_current(x)
        if x.ndim != 5 or x.shape[2] != self.channels:
            raise UserError(
                f"x has shape {list(x.shape)}; this norm needs [T, B, {self.channels}, H, W], time "
                "first: images [B, C, H, W] are one time step as x.unsqueeze(0), and T steps in "
                "one batch as x.unflatten(0, (T, B))"
            )
        if not x.numel():
            raise UserError(f"x has shape {list(x.shape)}: there is nothing to normalize")
        here = self.weight
        if x.device != here.device:
            problem = Problem(f"x is on {x.device}", f"the norm on {here.device}", "net.to(device)")
            raise UserError("one device is needed", [problem])
        if x.dtype == torch.float64 != here.dtype:
            problem = Problem(f"x is {x.dtype}", f"the norm {here.dtype}", "net.double()")
            raise UserError("one type is needed", [problem])

    @property
    def gain(self) -> Tensor:
        """The factor of the normalized value, `[C]`: weight alpha V_th of Eqs. 6-7."""
        return self.weight * self.scale

    def operands(self, x: Tensor) -> "Operands":
        """What the LIF operation computes this norm from.

        In evaluation eps is None: the running statistics are part of gain and bias. Raises
        `UserError` for an x that this norm does not fit.
        """
        kind = type(self)
        if kind.forward is not TDBatchNorm2d.forward and kind.operands is TDBatchNorm2d.operands:
            what, fix = "has a forward of its own", "apply it before: lif(norm(x))"
            raise UserError("no norm for neurons over time", [Problem(kind.__name__, what, fix)])
        if x.ndim != 5 or x.shape[2] != self.channels:
            self.check(x)
        if not self.training:
            return Operands(*self.affine(), None, False, 1.0)
        return Operands(self.weight, self.bias, self.eps, self.sync, self.scale)

    def affine(self) -> tuple[Tensor, Tensor]:
        """Gain and bias `[C]` of the norm in evaluation mode, from its running statistics."""
        gain = equations.gain(self.gain, self.running_var, self.eps)
        return gain, self.bias - self.running_mean * gain

    def track(self, mean: Tensor, var: Tensor, count: int) -> None:
        """Update the running statistics with those of a batch.

        mean, var: `[C]`; the variance is biased.
        count: as in `running`.
        """
        self.running(count).update(mean, var)

    def running(self, count: int) -> equations.Running:
        """The running statistics, to be updated with those of a batch.

        count: the number of values per channel on this rank, equal copies included; all ranks that
            share the statistics have the same number.
        """
        total = count * ranks(self.sync)
        return equations.Running(self.running_mean, self.running_var, self._momentum(), total)

    def _by_kernel(self, x: Tensor, repeats: int) -> Tensor:
        # PyTorch's kernel of the same equations saves x alone for backward, and not x - mean too.
        given = x.flatten(0, 1), self.gain, self.bias
        if repeats == 1:
            running = self.running_mean, self.running_var, True, self._momentum(), self.eps
            return torch.native_batch_norm(*given, *running)[0].view_as(x)
        out, mean, inverse = torch.native_batch_norm(*given, None, None, True, 0.0, self.eps)
        # The kernel returns 1 / sqrt(var + eps): a var far below eps is rounded away, and must not
        # become negative.
        var = (inverse.detach().square().reciprocal() - self.eps).clamp(min=0)
        self.track(mean.detach(), var, x.numel() // self.channels * repeats)
        return out.view_as(x)

    def _by_equations(self, x: Tensor, repeats: int) -> Tensor:
        wide = at_least_single(x)
        mean, var = equations.statistics(wide, self.sync)
        self.track(mean, var, x.numel() // self.channels * repeats)
        gain = equations.gain(self.gain, var, self.eps)
        return equations.normalize(wide, mean, gain, self.bias).to(x.dtype)

    def _momentum(self) -> float:
        # A checkpointed norm runs twice on a batch; its running statistics count the batch once.
        return 0.0 if recomputing() else self.momentum

    def extra_repr(self) -> str:
        """Channels and the factor of Eq. 6."""
        return f"{self.channels}, factor={self.factor!r}, scale={self.scale}"


def fold(conv: nn.Conv2d, norm: TDBatchNorm2d) -> nn.Conv2d:
    """A convolution that computes `norm(conv(x))` of evaluation mode, up to rounding.

    weight' = weight g and bias' = (bias - mean) g + beta, with g = scale gamma / sqrt(var + eps).
    """
    with torch.no_grad():
        gain, shift = norm.affine()
        bias = torch.zeros_like(norm.bias) if conv.bias is None else conv.bias
        folded = (SpikeConv2d if isinstance(conv, SpikeConv2d) else nn.Conv2d)(
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
        folded.bias.copy_(bias * gain + shift)
    return folded.train(conv.training)


class NoNorm(nn.Module):
    """The identity, for networks without normalization (STBP).

    channels: ignored.
    """

    @checked()
    def __init__(self, channels: int | None = None) -> None:
        super().__init__()

    @entry
    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """Return x; repeats is ignored."""
        return x


NORMS: Registry[type[nn.Module]] = Registry(
    "norm",
    {
        "tdbn": "rmploss.norm:TDBatchNorm2d",
        "bn_step": "rmploss.norm_step:StepBatchNorm2d",
        "none": "rmploss.norm:NoNorm",
    },
    family="norm",
)
"""Normalizations by name."""
