"""Launching GPU kernels: where Triton runs, how rows are cut into programs, options of a launch.

Triton is imported with the first launch, not with this file: a machine without it loads the package
all the same. With TRITON_INTERPRET=1 in the environment before Triton is imported, the same kernels
run on the CPU, slowly, for tests.

Results do not depend on the GPU: how rows are cut into programs depends on the shape alone, and the
sums of programs are added in their order.
"""

import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

TILE = 512
"""Elements of a tile of float32: 4 for a thread, one load of 16 bytes (`elements`)."""
CHANNELS = 64
"""Columns of a tile, at most: 256 bytes of float32, and a word of bits."""
PROGRAMS = 512
"""Programs of a kernel, at most: as many as fit on a GPU at once. Each walks down the rows, so that
there are few sums to add up. The number does not depend on the GPU, and neither do results."""
LOADS = 4
"""Tiles that a thread asks for at once where a kernel only streams: what a copy has in flight."""
OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
"""Of every launch. Products and sums are never contracted: spikes must not depend on the kernel.
The interpreter ignores these options, and contracts nothing."""


def missing(device: torch.device) -> str | None:
    """Why these kernels cannot run on a device; None if they can."""
    if not _is_installed():
        return "triton is not installed"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return f"its kernels run on GPUs, not on {device.type}"
    return None


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


def elements(dtype: torch.dtype) -> int:
    """Elements of a tile, so that a thread loads 16 bytes: twice as many in half precision."""
    return TILE * 2 if dtype.itemsize == 2 else TILE


def tile(channels: int, elements: int) -> dict[str, int]:
    """The tile of a shape: powers of two, as few idle columns as they allow."""
    columns = min(1 << (channels - 1).bit_length(), CHANNELS, elements)
    return {"BLOCK_R": elements // columns, "BLOCK_C": columns}


def cut(
    rows: int, channels: int, elements: int, loads: int = 1
) -> tuple[dict[str, int], tuple[int, int], int]:
    """The tile, the programs down and across, and how many times `loads` tiles each walks down."""
    shape = tile(channels, elements)
    down, across = -(-rows // (loads * shape["BLOCK_R"])), -(-channels // shape["BLOCK_C"])
    tiles = -(-down // max(1, PROGRAMS // across))
    return shape, (-(-down // tiles), across), tiles


def on(x: Tensor) -> AbstractContextManager[Any]:
    """Launch on the GPU of a tensor, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
