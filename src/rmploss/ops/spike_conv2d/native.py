"""The convolution by the native kernels: event-driven for spikes, Winograd for real numbers."""

import torch
from torch import Tensor

from rmploss.ops import layout, native
from rmploss.ops.native import address, as_wide, map_address
from rmploss.ops.spike_conv2d import dense
from rmploss.ops.spike_conv2d.dense import last
from rmploss.ops.spike_conv2d.inputs import Spatial
from rmploss.ops.spikes.native import pack_rows, unpack_rows

EVENT_DENSITY = 0.6
"""Above it a dense convolution is faster than the event-driven one (see benchmarks/)."""
EVENT_OUTPUTS = 24
"""Output channels from which on the event-driven kernels pay: a spike adds whole registers."""
WINOGRAD_CHANNELS = {2: 48, 4: 32}
WINOGRAD_TILES = 16
"""Channels (for 2x2 and 4x4 tiles) and tiles from which on Winograd pays."""


def convolve(
    shape: Spatial,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Event-driven where the input is spikes and sparse enough, else dense.

    Half precision, too, is computed in float32 and rounded at the end: from 32 channels on that is
    faster than a dense convolution in bfloat16, also with AVX512-BF16.
    """
    sparse = reads_bits(shape, count)
    if not sparse and not _is_winograd(shape, tile=2):
        return dense.convolve(shape, _maps(shape, x, bits, dtype), weight, bias)
    weight = as_wide(weight).contiguous()
    bias = None if bias is None else as_wide(bias).contiguous()
    y = native.empty(weight, shape.images, shape.out_channels, *shape.out, last=True)
    parameters = {
        "weight": address(weight, torch.float32),
        "bias": address(bias, torch.float32),
        "y": map_address(y),
    }
    if sparse:
        words = address(bits, torch.int64)
        native.module.event_forward(shape=record(shape), bits=words, **parameters)
    else:
        wide = last(as_wide(_maps(shape, x, bits, dtype)))
        native.module.winograd(
            shape=record(shape), x=map_address(wide), transposed=False, tile=2, **parameters
        )
    return y.to(dtype)


def convolve_backward(
    shape: Spatial,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The input's gradient by Winograd (3x3, stride 1), the weight's from the spikes."""
    need_x, need_weight = needs
    # F(2x2), which rounds less, on maps that hold no whole 4x4 tile.
    tile = 4 if min(shape.height, shape.width) >= 4 else 2
    native_x = need_x and _is_winograd(shape, tile)
    native_weight = need_weight and reads_bits(shape, count)
    others = (need_x and not native_x, need_weight and not native_weight)
    numbers = _maps(shape, x, bits, g_y.dtype) if others[1] else None
    g_x, g_weight = dense.gradients(shape, g_y, numbers, weight, others)
    wide_g = last(as_wide(g_y))
    if native_x:
        size = (shape.images, shape.channels, shape.height, shape.width)
        wide_x, wide_weight = native.empty(wide_g, *size, last=True), as_wide(weight).contiguous()
        native.module.winograd(
            shape=record(shape),
            x=map_address(wide_g),
            weight=address(wide_weight, torch.float32),
            bias=0,
            transposed=True,
            tile=tile,
            y=map_address(wide_x),
        )
        g_x = wide_x.to(g_y.dtype)
    if native_weight:
        if bits is None:  # in a traced graph x was kept without a look at its values
            assert x is not None
            bits, _ = pack_rows(layout.map_rows(x))
        wide_weight = native.empty(wide_g, *weight.shape)
        native.module.event_weight_gradient(
            shape=record(shape),
            bits=address(bits, torch.int64),
            g_y=map_address(wide_g),
            g_weight=address(wide_weight, torch.float32),
        )
        g_weight = wide_weight.to(weight.dtype)
    return g_x, g_weight


def reads_bits(shape: Spatial, count: Tensor) -> bool:
    """True if the event-driven kernels run: exact for spikes, faster up to some density."""
    neurons = shape.images * shape.channels * shape.height * shape.width
    return shape.out_channels >= EVENT_OUTPUTS and 0 <= int(count) <= EVENT_DENSITY * neurons


def _maps(shape: Spatial, x: Tensor | None, bits: Tensor | None, dtype: torch.dtype) -> Tensor:
    """x, or the maps that its bits stand for."""
    if x is not None:
        return x
    assert bits is not None
    return dense.maps(unpack_rows(bits, shape.channels, dtype), shape)


def _is_winograd(shape: Spatial, tile: int) -> bool:
    """True if the Winograd kernel computes this convolution."""
    kernel = (shape.kernel_height, shape.kernel_width, shape.stride, shape.padding)
    tiles = shape.images * -(-shape.height // tile) * -(-shape.width // tile)
    wide = min(shape.channels, shape.out_channels) >= WINOGRAD_CHANNELS[tile]
    return kernel == (3, 3, 1, 1) and wide and tiles >= WINOGRAD_TILES


def record(shape: Spatial) -> object:
    """The shape as the kernels read it."""
    height, width = shape.out
    return native.module.convolution(
        **shape._asdict(),
        out_height=height,
        out_width=width,
        threads=torch.get_num_threads(),
    )
