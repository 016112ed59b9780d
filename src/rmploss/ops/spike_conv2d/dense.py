"""The convolution and its gradients by PyTorch: where spikes do not pay, and on GPUs.

All maps are channels-last, whatever they were.
"""

import torch
from torch import Tensor

from rmploss.ops.spike_conv2d.inputs import Spatial
from rmploss.ops.spike_conv2d.reference import is_subsampling, subsampled


def convolve(shape: Spatial, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y `[N, C', H', W']` of the type of x."""
    if _is_subsampling(weight, shape):
        x, shape = _subsampled(x, shape)
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return last(torch.conv2d(last(x), weight, bias, shape.stride, shape.padding))


def gradients(
    shape: Spatial, g_y: Tensor, x: Tensor | None, weight: Tensor, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and the weight, those that are needed; x: for that of the weight."""
    need_x, need_weight = needs
    if not (need_x or need_weight):
        return None, None
    if x is None:  # its shape and layout count, its values do not
        x = maps(g_y.new_empty(shape.pixels, shape.channels), shape)
    whole, few = shape, _is_subsampling(weight, shape)
    if few:
        x, shape = _subsampled(x, shape)
    g_x, g_weight, _ = torch.ops.aten.convolution_backward(
        last(g_y), last(x), weight.to(g_y.dtype), None, [shape.stride] * 2, [shape.padding] * 2,
        [1, 1], False, [0, 0], 1, [need_x, need_weight, False],
    )  # fmt: skip
    if few and need_x:
        spread = maps(g_y.new_zeros(whole.pixels, whole.channels), whole)
        spread[:, :, :: whole.stride, :: whole.stride] = g_x
        g_x = spread
    return last(g_x) if need_x else None, g_weight.to(weight.dtype) if need_weight else None


def maps(rows: Tensor, shape: Spatial) -> Tensor:
    """The maps `[N, C, H, W]` of rows `[N H W, C]`, channels last."""
    return rows.view(shape.images, shape.height, shape.width, shape.channels).movedim(-1, 1)


def last(x: Tensor) -> Tensor:
    """x with its memory channels last."""
    return x.contiguous(memory_format=torch.channels_last)


def _is_subsampling(weight: Tensor, shape: Spatial) -> bool:
    return is_subsampling(weight, (shape.stride,) * 2, (shape.padding,) * 2)


def _subsampled(x: Tensor, shape: Spatial) -> tuple[Tensor, Spatial]:
    """Every s-th pixel, and the same convolution with a stride of 1."""
    x = subsampled(x, (shape.stride,) * 2)
    return x, shape._replace(height=x.shape[2], width=x.shape[3], stride=1)
