"""Between sequences `[T, B, C, ...]`, or maps, and what kernels read: rows, channels last."""

from typing import Any

import torch
from torch import Tensor


def rows(x: Any, dtype: torch.dtype) -> Any:
    """Rows `[T, R, C]` of a sequence `[T, B, C, ...]`: no copy of channels-last memory."""
    if x is None:
        return None
    return x.to(dtype).movedim(2, -1).contiguous().view(x.shape[0], -1, x.shape[2])


def map_rows(x: Tensor) -> Tensor:
    """Rows `[R, C]` of maps `[N, C, H, W]`: no copy of channels-last memory."""
    return x.movedim(1, -1).reshape(-1, x.shape[1])


def state_rows(u: Tensor | None) -> Tensor | None:
    """Rows `[R, C]` of a membrane `[B, C, ...]`."""
    return None if u is None else u.movedim(1, -1).contiguous().view(-1, u.shape[1])


def dense(g: Tensor | None) -> Tensor | None:
    """A gradient as autograd may not hand it over: it may be expanded or strided."""
    return None if g is None else g.contiguous()


def sequence(rows: Tensor, x: Tensor) -> Tensor:
    """A sequence `[T, B, C, ...]` like x of rows `[T, R, C]`."""
    return rows.view(rows.shape[0], x.shape[1], *x.shape[3:], x.shape[2]).movedim(-1, 2)


def state(rows: Tensor, x: Tensor) -> Tensor:
    """A membrane `[B, C, ...]` like x of rows `[R, C]`."""
    return rows.view(x.shape[1], *x.shape[3:], x.shape[2]).movedim(-1, 1)


def whole(view: Tensor) -> Tensor:
    """A tensor over the memory of a view, but no view: callers may change it in place."""
    return view.new_empty(0).set_(view)  # pyright: ignore[reportArgumentType]


def empty(x: Tensor, steps: int, dtype: torch.dtype | None = None) -> Tensor:
    """A sequence like x in the memory that kernels write: channels last."""
    rows = x.new_empty(steps, x.shape[1], *x.shape[3:], x.shape[2], dtype=dtype or x.dtype)
    return rows.movedim(-1, 2)


def empty_state(x: Tensor, decay: Tensor) -> Tensor:
    """A membrane of x in the memory that kernels write."""
    return decay.new_empty(x.shape[1], *x.shape[3:], x.shape[2]).movedim(-1, 1)
