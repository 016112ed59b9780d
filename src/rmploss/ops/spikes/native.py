"""Bits of rows by the native kernels."""

import torch
from torch import Tensor

from rmploss.ops import native
from rmploss.ops.layout import words
from rmploss.ops.native import address


def pack_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """The words `[R, words]` of x `[R, C]` and the number of ones `[]`; -1 if not all 0 and 1."""
    R, C = x.shape
    single = x.to(torch.float32).contiguous()
    bits = torch.empty(R, words(C), dtype=torch.int64, device="cpu")  # whatever the default device
    count = native.module.pack(
        x=address(single, torch.float32),
        rows=R,
        channels=C,
        bits=address(bits, torch.int64),
        threads=torch.get_num_threads(),
    )
    if x.dtype == torch.float64 and not torch.equal(single.double(), x):
        count = -1  # a number that only float32 takes for 0 or 1
    return bits, torch.tensor(count, device="cpu")


def unpack_rows(bits: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    """The rows `[R, C]` of the words, 0 and 1."""
    x: Tensor = native.module.empty((bits.shape[0], channels), (channels, 1), False)
    native.module.unpack(
        bits=address(bits, torch.int64),
        rows=bits.shape[0],
        channels=channels,
        x=address(x, torch.float32),
        threads=torch.get_num_threads(),
    )
    return x.to(dtype)


def pool_rows(bits: Tensor, channels: int, width: int, dtype: torch.dtype) -> Tensor:
    """The means `[R / 4, C]` of the words `[R, words]` over 2x2 squares of maps.

    width: of the means, half of that of the maps.
    """
    R = bits.shape[0]
    means: Tensor = native.module.empty((R // 4, channels), (channels, 1), False)
    native.module.pool(
        bits=address(bits, torch.int64),
        rows=R,
        width=width,
        channels=channels,
        means=address(means, torch.float32),
        threads=torch.get_num_threads(),
    )
    return means.to(dtype)
