"""Between sequences `[T, B, C, ...]`, or maps, and what kernels read: rows, channels last."""

import torch
from torch import Tensor

FEW_CHANNELS = 16
"""Below so many channels of channels-last maps oneDNN's 1x1 convolution of a stride in one or both
dimensions, without padding, writes past its memory in the gradient of the weight (float32). The
number is that of AVX-512; with AVX2 it is 8."""


def rows(x: Tensor, dtype: torch.dtype) -> Tensor:
    """Rows `[T, R, C]`, R = B H W, of a sequence: no copy of channels-last memory of that type.

    As in the other functions of this file, the sign of a lazily negated view (`x.conj().imag`) is
    written out: kernels read memory, where it is not.
    """
    return x.resolve_neg().to(dtype).movedim(2, -1).contiguous().view(x.shape[0], -1, x.shape[2])


def map_rows(x: Tensor) -> Tensor:
    """Rows `[R, C]` of maps `[N, C, H, W]`: no copy of channels-last memory."""
    return x.resolve_neg().movedim(1, -1).reshape(-1, x.shape[1])


def as_handed_out(x: Tensor) -> Tensor:
    """Maps `[..., C, H, W]` for a caller: where C is small on a CPU, not channels last.

    So a `torch.nn.Conv2d` of the caller's does not meet the fault of `FEW_CHANNELS`.
    """
    if x.ndim < 4 or not x.is_cpu or x.shape[-3] >= FEW_CHANNELS or x.stride(-3) != 1:
        return x
    return x.clone(memory_format=torch.contiguous_format)  # one channel is contiguous as it is


def state_rows(u: Tensor) -> Tensor:
    """Rows `[R, C]` of a membrane `[B, C, ...]`."""
    return u.resolve_neg().movedim(1, -1).contiguous().view(-1, u.shape[1])


def sequence(rows: Tensor, x: Tensor) -> Tensor:
    """A sequence `[T, B, C, ...]` with the shape of x behind T, of rows `[T, R, C]`."""
    return rows.view(rows.shape[0], x.shape[1], *x.shape[3:], x.shape[2]).movedim(-1, 2)


def state(rows: Tensor, x: Tensor) -> Tensor:
    """A membrane `[B, C, ...]`, one step of x, of rows `[R, C]`."""
    return rows.view(x.shape[1], *x.shape[3:], x.shape[2]).movedim(-1, 1)


def whole(view: Tensor) -> Tensor:
    """A tensor over the memory of a view that is no view: callers may change it in place."""
    return view.new_empty(0).set_(view)  # pyright: ignore[reportArgumentType]


def empty(x: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """An empty sequence like x in the memory that kernels write: channels last."""
    rows = x.new_empty(steps, x.shape[1], *x.shape[3:], x.shape[2], dtype=dtype or x.dtype)
    return rows.movedim(-1, 2)


def empty_state(x: Tensor, like: Tensor) -> Tensor:
    """An empty membrane of x in the memory that kernels write, of the type of `like`."""
    return like.new_empty(x.shape[1], *x.shape[3:], x.shape[2]).movedim(-1, 1)


def wide(dtype: torch.dtype) -> torch.dtype:
    """The type in which values of a type are computed: float32 at least."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def words(channels: int) -> int:
    """Words of 64 bits in a row of spikes."""
    return (channels + 63) // 64


def at_least_single(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
