"""The inputs of the convolution of spikes, checked once, and the shape that its kernels get."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from rmploss.errors import Problem, SmallMapError, UserError
from rmploss.ops.layout import words

TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The types of x that the kernels take."""


class Spatial(NamedTuple):
    """The shape of a convolution: input `[N, C, H, W]`, weight `[C', C, K, K]`."""

    images: int
    channels: int
    height: int
    width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride: int
    padding: int

    @property
    def out(self) -> tuple[int, int]:
        """H', W'."""
        return (
            (self.height + 2 * self.padding - self.kernel_height) // self.stride + 1,
            (self.width + 2 * self.padding - self.kernel_width) // self.stride + 1,
        )

    @property
    def pixels(self) -> int:
        """N H W."""
        return self.images * self.height * self.width

    @staticmethod
    def of(size: Sequence[int], weight: Tensor, stride: int, padding: int) -> "Spatial":
        """From the size of the input and the weight."""
        N, C, H, W = size
        out_channels, _, K_h, K_w = weight.shape
        return Spatial(N, C, H, W, out_channels, K_h, K_w, stride, padding)


def require_fit(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> None:
    """Raise `UserError` with what PyTorch's convolution would refuse; the arguments are its own.

    Not inside torch.compile, whose shapes are symbols.
    """
    if torch.compiler.is_compiling():
        return
    if x.layout is not torch.strided:
        raise UserError(BAD, [Problem(f"x is {x.layout}", "is not dense", "x.to_dense()")])
    if not x.is_floating_point():
        raise UserError(BAD, [Problem(f"x is {x.dtype}", "no floating-point numbers", "x.float()")])
    if x.dtype != weight.dtype and not torch.is_autocast_enabled(x.device.type):
        what = f"the weight {weight.dtype}"
        raise UserError(BAD, [Problem(f"x is {x.dtype}", what, f"x.to({weight.dtype})")])
    if x.device != weight.device:
        what = f"the weight on {weight.device}"
        raise UserError(BAD, [Problem(f"x is on {x.device}", what, "net.to(x.device)")])
    C = weight.shape[1] * groups
    if x.ndim not in (3, 4) or x.shape[-3] != C:
        fix = "steps in one batch: x.flatten(0, 1)" if x.ndim == 5 else ""
        problem = Problem(
            f"x has shape {list(x.shape)}", f"a convolution takes [N, {C}, H, W]", fix
        )
        raise UserError(BAD, [problem])
    if isinstance(padding, str):
        padding = (0, 0) if padding == "valid" else tuple(weight.shape[2:])
    if min(stride) < 1 or min(padding) < 0:
        problem = Problem(f"stride = {stride}, padding = {padding}", "must be >= 1, and >= 0")
        raise UserError(BAD, [problem])
    require_map(
        x, [d * (k - 1) + 1 for d, k in zip(dilation, weight.shape[2:], strict=True)], padding
    )
    if bias is not None and (bias.shape != weight.shape[:1] or bias.device != x.device):
        what = f"must be [{weight.shape[0]}] on {x.device}"
        raise UserError(BAD, [Problem(f"bias = {list(bias.shape)} on {bias.device}", what)])


def require_map(x: Tensor, kernel: Sequence[int], padding: Sequence[int] = (0, 0)) -> None:
    """Raise `SmallMapError` for a map `[..., H, W]` smaller than a kernel, padding included.

    Not inside torch.compile, as `require_fit`.
    """
    if torch.compiler.is_compiling():
        return
    sides = [side + 2 * p for side, p in zip(x.shape[-2:], padding, strict=True)]
    if any(side < k for side, k in zip(sides, kernel, strict=True)):
        title = f"a map of {x.shape[-2]} x {x.shape[-1]} is smaller than a kernel of "
        raise SmallMapError(title + " x ".join(map(str, kernel)))


BAD = "a convolution cannot take this input"


class ConvInputs(NamedTuple):
    """All that one call of the operation reads.

    backend: the one that runs.
    x: `[N, C, H, W]`; without is_dense only its shape, type and place in the graph count.
    bits: x as bits, `[N H W, words]`, or None.
    spike_count: the number of spikes `[]`, with the bits.
    weight: `[C', C, K, K]`, of the type of x or float32 (under autocast).
    bias: `[C']` or None.
    stride, padding: of both dimensions.
    is_dense: whether x holds its numbers.
    look: whether to look if x is all 0 and 1, where no bits are given.
    """

    backend: str
    x: Tensor
    bits: Tensor | None
    spike_count: Tensor | None
    weight: Tensor
    bias: Tensor | None
    stride: int
    padding: int
    is_dense: bool
    look: bool

    @property
    def shape(self) -> Spatial:
        """The shape of the convolution."""
        return Spatial.of(self.x.shape, self.weight, self.stride, self.padding)

    def problem(self) -> str | None:
        """Why the kernels cannot compute this; None if they can. They check no bounds."""
        x, weight, bias, bits = self.x, self.weight, self.bias, self.bits
        given = [weight] if bias is None else [weight, bias]
        if x.dtype not in TYPES:
            return f"x is {x.dtype}, not float32 or half precision"
        if x.layout is not torch.strided:
            return f"x is {x.layout}"
        if any(t.dtype not in (x.dtype, torch.float32) for t in given):
            return f"weight and bias are neither float32 nor {x.dtype} as x is"
        if any(t.device != x.device for t in given):
            return "the tensors are on different devices"
        if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
            return f"a weight {list(weight.shape)} does not fit an input {list(x.shape)}"
        if bias is not None and tuple(bias.shape) != (weight.shape[0],):
            return f"the bias has shape {list(bias.shape)}, not [{weight.shape[0]}]"
        if self.stride < 1 or self.padding < 0 or min(self.shape.out) < 1:
            return "the output would be empty"
        if bits is None:
            return None if self.is_dense and x.numel() and weight.numel() else "the input is empty"
        N, C, H, W = x.shape
        if tuple(bits.shape) != (N * H * W, words(C)) or bits.dtype != torch.int64:
            return f"the bits are {list(bits.shape)}, {bits.dtype}, for x {list(x.shape)}"
        if self.spike_count is None or self.spike_count.ndim or bits.device != x.device:
            return "the bits need their number, on the device of x"
        return None
