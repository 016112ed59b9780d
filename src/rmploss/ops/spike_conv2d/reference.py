"""The convolution of spikes as an equation: PyTorch's, whose autograd does the backward.

    y[n, c', i, j] = bias[c'] + sum over c, k, l of
                     weight[c', c, k, l] x[n, c, i s + k - p, j s + l - p]

s: the stride; p: the padding, beyond which x is 0.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from rmploss.ops.layout import FEW_CHANNELS


def spike_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """The convolution `[N, C', H', W']` of x `[N, C, H, W]` with weight `[C', C, K, K]`."""
    return conv2d(x, weight, bias, (stride, stride), (padding, padding))


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int] | str,
    dilation: Sequence[int] = (1, 1),
    groups: int = 1,
) -> Tensor:
    """PyTorch's convolution, without the shapes that end the process: see `FEW_CHANNELS`."""
    if is_subsampling(weight, stride, padding):
        x, stride = subsampled(x, stride), (1, 1)
    return F.conv2d(x, weight, bias, tuple(stride), padding, tuple(dilation), groups)  # pyright: ignore[reportArgumentType]


def is_subsampling(weight: Tensor, stride: Sequence[int], padding: Sequence[int] | str) -> bool:
    """True for a strided 1x1 convolution of few channels: a stride of 1 on every s-th pixel."""
    few = weight.shape[1] < FEW_CHANNELS
    bare = padding == "valid" if isinstance(padding, str) else not any(padding)
    return few and bare and max(stride) > 1 and tuple(weight.shape[2:]) == (1, 1)


def subsampled(x: Tensor, stride: Sequence[int]) -> Tensor:
    """Every s-th pixel of x `[..., H, W]`."""
    return x[..., :: stride[0], :: stride[1]]
