"""What a provider implements (`Kernels`), and the shapes that it is told.

Arrays are channels-last rows: y `[T, R, C]` with R = B H W. The operations (layer.py,
convolution.py) know a provider by its name, so that one schema, one fake and one backward serve
all of them.
"""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.ops.rule import Rule


class Current(NamedTuple):
    """What the input current is made of: x(t) = (y(t) - mean) inverse gain + bias + residual(t).

    y: `[T, R, C]`, or `[1, R, C]` for `steps` equal steps. statistics: of y,
    float64 `[3, C]` (mean, variance, number of values), with which inverse = 1 / sqrt(var + eps)
    (Eq. 6); None: mean 0, inverse 1. gain, bias: `[C]` or None; residual: `[T, R, C]`, or its bits
    `[T R, words]`, or None; start: the membrane before the first step `[R, C]` or None; decay,
    threshold: `[C]`. y and residual may be of half precision; all else has the type in which is
    computed, float32 or float64. Mean and inverse gain are computed in float64, rounded once.
    """

    y: Tensor
    statistics: Tensor | None
    eps: float
    gain: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    start: Tensor | None
    decay: Tensor
    threshold: Tensor
    steps: int

    @property
    def is_static(self) -> bool:
        """Whether one step of y stands for all."""
        return self.y.shape[0] < self.steps

    def misfit(self) -> str | None:
        """What does not fit, but for the norm: a kernel would read what is not there."""
        (T, R, C), y, dtype = self.rows, self.y, self.decay.dtype
        if y.shape[0] not in (1, T) or not y.numel() or dtype != wide(y.dtype):
            return f"y is {list(y.shape)}, {y.dtype}, for {T} steps computed in {dtype}"
        channels, residual = (C,), self.residual
        for name, x, shape in (
            ("gain", self.gain, channels), ("bias", self.bias, channels),
            ("decay", self.decay, channels), ("threshold", self.threshold, channels),
            ("start", self.start, (R, C)),
        ):  # fmt: skip
            if x is None:
                continue
            if tuple(x.shape) != shape or x.dtype != dtype:
                return f"{name} is {list(x.shape)}, {x.dtype}; not {list(shape)}, {dtype}"
            if x.device != y.device:
                return f"{name} is on {x.device}, y on {y.device}"
        if residual is None:
            return None
        if self.is_static:
            return "a residual changes over time, one step of y cannot stand for all"
        is_bits = residual.dtype == torch.int64
        shape = (T * R, words(C)) if is_bits else (T, R, C)
        if tuple(residual.shape) != shape or not (is_bits or residual.dtype in (y.dtype, dtype)):
            return f"residual is {list(residual.shape)}, {residual.dtype}; not {list(shape)}"
        if residual.device != y.device:
            return f"residual is on {residual.device}, y on {y.device}"
        return None

    def misfit_of_norm(self) -> str | None:
        """What does not fit of the statistics and what belongs to them."""
        found = self.statistics
        if found is None:
            return None
        C = self.y.shape[2]
        if tuple(found.shape) != (3, C) or found.dtype != torch.float64:
            return f"statistics: {list(found.shape)}, {found.dtype}, is not [3, {C}], float64"
        return "eps needs a gain and a bias" if self.gain is None or self.bias is None else None

    @property
    def rows(self) -> tuple[int, int, int]:
        """T, R, C."""
        return self.steps, self.y.shape[1], self.y.shape[2]


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

    @staticmethod
    def of(size: Sequence[int], weight: Tensor, stride: int, padding: int) -> "Spatial":
        """From the size of the input and the weight."""
        N, C, H, W = size
        out_channels, _, K_h, K_w = weight.shape
        return Spatial(N, C, H, W, out_channels, K_h, K_w, stride, padding)


class Kernels(Protocol):
    """What a provider implements. All tensors are dense and channels-last.

    Convolutions and bits take half precision; neurons do if the kernels read it. Computed is in
    float32, or in float64.
    """

    reads_half: bool
    """Whether y, residual, g_spikes and out may be of half precision; they are float32 if not."""
    looks_free: bool
    """Whether what `pack` found can be read without a wait."""

    def lif_forward(self, current: Current, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes `[T, R, C]` of the type of y, moments `[4, C]`, last u `[R, C]`.

        Moments are empty unless rule.moments.
        """
        ...

    def lif_backward(
        self,
        current: Current,
        rule: Rule,
        g_spikes: Tensor | None,
        g_moments: Tensor | None,
        g_last: Tensor | None,
        constants: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of x `[T, R, C]` (of a static y: summed, `[1, R, C]`) and of start, and sums.

        Without a start its gradient is empty. sums `[4, C]`: the gradients of bias, gain, decay and
        threshold, sum g_x and sum g_x (y - mean) inverse the first two; the last two need not be
        right without `constants`. All are of the wide type, whatever that of y.
        """
        ...

    def statistics(self, y: Tensor) -> Tensor:
        """Mean, biased variance and number of values per channel, float64 `[3, C]`."""
        ...

    def norm_gradient(
        self,
        g_x: Tensor,
        y: Tensor,
        statistics: Tensor,
        weight: Tensor,
        sums: Tensor,
        eps: float,
        out: Tensor,
    ) -> None:
        """out = weight inverse (g_x - S_1 / n - z S_2 / n), z = (y - mean) inverse: of Eqs. 6-7.

        inverse = 1 / sqrt(var + eps); statistics `[3, C]`: mean, var, n; sums, float64 `[2, C]`:
        S_1 = sum g_x, S_2 = sum g_x z over all n values. out has the type of y and may be g_x.
        """
        ...

    def pack(self, x: Tensor, binary: bool = False) -> tuple[Tensor, Tensor]:
        """Bits `[R, words]` of x `[R, C]` and their number `[]`, int64 on its device.

        The number is -1 if not all are 0 or 1. binary: they are promised to be; if they are not,
        this fails, on a GPU when it gets there: nothing waits for it.
        """
        ...

    def unpack(self, bits: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The rows `[R, C]` of the bits, 0 and 1, of a floating-point type."""
        ...

    def convolve(
        self,
        shape: Spatial,
        x: Tensor,
        bits: Tensor,
        spikes: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """y `[N, C', H', W']` of the type of x; bits, spikes: what `pack` returned.

        The weight may be float32 beside an x of half precision.
        """
        ...

    def convolve_backward(
        self,
        shape: Spatial,
        g_y: Tensor,
        x: Tensor | None,
        bits: Tensor | None,
        spikes: Tensor,
        weight: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and the weight, those that are needed; x or its bits are given.

        They have the types of g_y and of the weight; spikes: as in `convolve`.
        """
        ...


BROKEN_PROMISE = (
    "promised to be spikes (binary, binary_residual), but not all 0 and 1. In a network of this "
    "package, call net.train() or net.eval() after a change of its layers; with operations of your "
    "own, leave the promise out"
)
"""What a broken promise says: a warning where looking is free; an error in traced graphs, which
keep bits in any case; on a GPU the end of the process's use of that GPU."""
KERNELS: dict[str, Kernels] = {}
"""Provider -> its kernels; filled by `providers.py`."""


def words(channels: int) -> int:
    """Words of 64 bits in a row of spikes."""
    return (channels + 63) // 64


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which values of a type are computed: float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def require(wrong: str | None) -> None:
    """Raise `UserError` for what does not fit; None fits."""
    if wrong:
        raise UserError(wrong)
