"""The convolution of spikes: a `torch.nn.Conv2d` that keeps its input as bits."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rmploss import ops
from rmploss.arguments import checked
from rmploss.entry import Untraceable, entry
from rmploss.errors import Problem, UserError
from rmploss.ops import Spikes
from rmploss.sizes import is_meta, room_problems


class SpikeConv2d(Untraceable, nn.Conv2d):
    """`torch.nn.Conv2d` of `[N, C, H, W]`, exact for any input and made for spikes (0 and 1).

    Spikes are kept for backward as bits, and on the CPU a sparse input is convolved event by event
    (`ops.spike_conv2d`). Groups, dilation, unequal strides and padding modes run as in the parent.
    """

    @checked(
        **{"": "names: SpikeConv2d(3, 64, 3, padding=1)", "in_channels": "SpikeConv2d(3, 64, 3)"}
    )
    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | Literal["same", "valid"] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: torch.device | str | int | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        """The arguments are those of `torch.nn.Conv2d`. Raises `UserError`."""
        sizes: Any = {"in_channels": in_channels, "out_channels": out_channels}
        spatial: Any = {"kernel_size": kernel_size, "stride": stride, "dilation": dilation}
        problems = [
            *_small({**sizes, **spatial, "groups": groups}, 1),
            *_small({} if isinstance(padding, str) else {"padding": padding}, 0),
        ]
        if dtype is not None and not dtype.is_floating_point:
            problems.append(Problem(f"dtype = {dtype}", "must be a floating-point type"))
        problems += _device_problems(device)
        if not problems:
            problems += _unfit(in_channels, out_channels, groups, padding, _pair(stride))
            if not is_meta(device):
                values = in_channels // groups * out_channels * math.prod(_pair(kernel_size))
                where = f"in_channels = {in_channels}, out_channels = {out_channels}"
                problems += room_problems(where, values, "fewer channels")
        if problems:
            raise UserError(f"bad {type(self).__name__}", problems)
        options: Any = {"padding": padding, "groups": groups, "bias": bias, "device": device}
        super().__init__(**sizes, **spatial, **options, padding_mode=padding_mode, dtype=dtype)

    @entry
    def forward(self, input: Tensor | Spikes) -> Tensor:
        """The convolution `[N, C', H', W']`.

        input: `[N, C, H, W]`, or `Spikes` `[T, B, C, H, W]`, of which the result has the leading
            dimensions.
        """
        return ops.as_handed_out(self.convolve(input))

    def convolve(self, input: Tensor | Spikes, look: bool = True) -> Tensor:
        """`forward` in the memory layout of the kernels, for the layer of a network that reads it.

        look: whether a tensor is looked at for being all 0 and 1.
        """
        if not isinstance(input, Tensor | Spikes):
            ops.check_current(input)
        if isinstance(input, Tensor) and input.ndim == 5:
            shape = list(input.shape)
            raise UserError(
                f"x has shape {shape}; a convolution takes [N, C, H, W]: "
                "conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])"
            )
        (s, s_w), p, dilation = self.stride, self.padding, self.dilation
        square = s == s_w and isinstance(p, tuple) and p[0] == p[1] and dilation == (1, 1)
        if not square or self.groups != 1 or self.padding_mode != "zeros":
            if isinstance(input, Spikes):
                steps = input.shape[:2]
                return super().forward(input.dense.flatten(0, 1)).unflatten(0, steps)
            return super().forward(input)
        return ops.spike_conv2d(
            input, self.weight, self.bias, stride=s, padding=int(p[0]), look=look
        )

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # PyTorch's, whose shapes some of oneDNN's kernels do not survive.
        padding, own = self.padding, (self.stride, self.padding, self.dilation, self.groups)
        ops.require_fit(input, weight, bias, *own)
        if self.padding_mode != "zeros":
            around = self._reversed_padding_repeated_twice
            if self.padding_mode != "replicate":
                # A reflection leaves out the pixel at the edge.
                least = [p + (self.padding_mode == "reflect") for p in around[::-2]]
                ops.require_map(input, least)
            input = F.pad(input, around, mode=self.padding_mode)
            padding = (0, 0)
        return ops.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)


def _pair(value: int | Sequence[int]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _small(arguments: Mapping[str, int | Sequence[int]], least: int) -> list[Problem]:
    """The problems of numbers, or pairs of them, below the least."""
    return [
        Problem(f"{name} = {value}", f"must be at least {least}")
        for name, value in arguments.items()
        if min(_pair(value)) < least
    ]


def _device_problems(device: torch.device | str | int | None) -> list[Problem]:
    """The problem of a device that is not here."""
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        return [Problem(f"device = {device!r}", reason, 'device="cpu"')]
    return []


def _unfit(
    channels: int, out_channels: int, groups: int, padding: object, stride: Sequence[int]
) -> list[Problem]:
    """The problems of groups that do not divide the channels, and of "same" with a stride."""
    problems = [
        Problem(f"{name} = {count}", f"must be divisible by groups = {groups}", "groups=1")
        for name, count in (("in_channels", channels), ("out_channels", out_channels))
        if count % groups
    ]
    if padding == "same" and max(stride) > 1:
        what = "keeps the size, which a stride above 1 divides"
        problems.append(Problem("padding = 'same'", what, "padding=kernel_size // 2"))
    return problems
