"""The convolution of spikes as an equation: PyTorch's, whose autograd does the backward.

    y[n, c', i, j] = bias[c'] + sum over c, k, l of
                     weight[c', c, k, l] x[n, c, i s + k - p, j s + l - p]

s: the stride; p: the padding, beyond which x is 0.
"""

import torch.nn.functional as F
from torch import Tensor

FEW_CHANNELS = 16
"""Below so many input channels oneDNN's strided 1x1 convolution of channels-last maps writes past
its memory in the gradient of the weight."""


def spike_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, *, stride: int = 1, padding: int = 0
) -> Tensor:
    """The convolution `[N, C', H', W']` of x `[N, C, H, W]` with weight `[C', C, K, K]`."""
    if is_subsampling(weight, stride, padding):
        x, stride = x[:, :, ::stride, ::stride], 1
    return F.conv2d(x, weight, bias, stride, padding)


def is_subsampling(weight: Tensor, stride: int, padding: int) -> bool:
    """True for a strided 1x1 convolution of few channels: a stride of 1 on every s-th pixel."""
    few = weight.shape[1] < FEW_CHANNELS
    return few and stride > 1 and padding == 0 and tuple(weight.shape[2:]) == (1, 1)
