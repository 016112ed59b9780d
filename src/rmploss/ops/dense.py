"""The dense convolution and its gradients by PyTorch, where spikes do not pay: all providers'.

All maps are channels-last, whatever they were.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from rmploss.ops.kernels import Kernels, Spatial


def convolve(shape: "Spatial", x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y `[N, C', H', W']`."""
    weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
    return _last(torch.conv2d(_last(x), weight, bias, shape.stride, shape.padding))


def gradients(
    kernels: "Kernels",
    shape: "Spatial",
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    weight: Tensor,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x and the weight, those that are needed; x: None if its bits are kept."""
    need_x, need_weight = needs
    if not (need_x or need_weight):
        return None, None
    size = (shape.images, shape.height, shape.width, shape.channels)
    if x is not None:
        x = _last(x)
    elif need_weight:
        assert bits is not None
        x = kernels.unpack(bits, shape.channels, g_y.dtype).view(size).movedim(-1, 1)
    else:  # its shape and layout count, its values do not
        x = g_y.new_empty(size).movedim(-1, 1)
    g_x, g_weight, _ = torch.ops.aten.convolution_backward(
        _last(g_y), x, weight.to(g_y.dtype), None, [shape.stride] * 2, [shape.padding] * 2,
        [1, 1], False, [0, 0], 1, [need_x, need_weight, False],
    )  # fmt: skip
    return _last(g_x) if need_x else None, g_weight.to(weight.dtype) if need_weight else None


def _last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
