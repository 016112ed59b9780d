"""Bits of rows by GPU kernels (triton_kernels.py)."""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from rmploss.ops.layout import words
from rmploss.ops.triton import OPTIONS, on

ROWS = 16
"""Rows of a tile of bits."""


def pack_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """The words `[R, words]` of x `[R, C]` and the number of ones `[]`; -1 if not all are 0 or 1.

    x: of any floating-point type. Reading the number waits for the GPU.
    """
    x = x.contiguous()
    R, C = x.shape
    bits = x.new_empty(R, words(C), dtype=torch.int64)
    programs = (-(-R // ROWS), words(C))
    found = x.new_empty(*programs, 2, dtype=torch.int64)
    with on(x):
        _kernels().pack[programs](x, bits, found, R, C, words(C), BLOCK_R=ROWS, **OPTIONS)
    ones, others = found.sum((0, 1)).unbind()
    return bits, torch.where(others == 0, ones, -1)


def unpack_rows(bits: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """The rows `[R, C]` of the words, 0 and 1."""
    R = bits.shape[0]
    x = bits.new_empty(R, channels, dtype=dtype)
    programs = (-(-R // ROWS), words(channels))
    with on(bits):
        _kernels().unpack[programs](
            bits.contiguous(), x, R, channels, words(channels), BLOCK_R=ROWS, **OPTIONS
        )
    return x


def pool_rows(bits: Tensor, channels: int, width: int, dtype: torch.dtype) -> Tensor:
    """The means `[R / 4, C]` of the words `[R, words]` over 2x2 squares of maps.

    width: of the means, half of that of the maps.
    """
    R = bits.shape[0] // 4
    means = bits.new_empty(R, channels, dtype=dtype)
    programs = (-(-R // ROWS), words(channels))
    with on(bits):
        _kernels().pool[programs](
            bits.contiguous(), means, R, channels, words(channels), width, BLOCK_R=ROWS, **OPTIONS
        )
    return means


@cache
def _kernels() -> Any:
    """The module with the kernels: the first call imports Triton."""
    return import_module("rmploss.ops.spikes.triton_kernels")
