"""The convolution on GPUs: dense, by PyTorch (cuDNN), from spikes that are kept as bits.

A GPU multiplies faster than it looks for spikes.
"""

import torch
from torch import Tensor

from rmploss.ops.spike_conv2d import dense
from rmploss.ops.spike_conv2d.inputs import Spatial
from rmploss.ops.spikes.triton import unpack_rows


def convolve(
    shape: Spatial,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Dense; the neurons of this backend write the numbers of their spikes."""
    if x is None:
        assert bits is not None
        x = dense.maps(unpack_rows(bits, shape.channels, dtype), shape)
    return dense.convolve(shape, x, weight, bias)


def convolve_backward(
    shape: Spatial,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """Dense, of the numbers that the bits stand for."""
    if x is None and bits is not None and needs[1]:
        x = dense.maps(unpack_rows(bits, shape.channels, g_y.dtype), shape)
    return dense.gradients(shape, g_y, x, weight, needs)


def reads_bits(shape: Spatial, count: Tensor) -> bool:
    """False: forward reads numbers."""
    return False
