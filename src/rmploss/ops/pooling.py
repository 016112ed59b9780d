"""Average pooling that keeps nothing for backward.

    y[i, j] = mean of x over the k x k square (i, j);   dL/dx = dL/dy / k^2 on the whole square

PyTorch's keeps its input, of which the gradient needs no more than the shape: in these networks the
largest spike tensor there is.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.ops import native
from rmploss.ops.tracing import is_traced, needs_plain_operations


def avg_pool2d(x: Tensor, size: int) -> Tensor:
    """The means `[N, C, H // size, W // size]` over squares of x `[N, C, H, W]`."""
    if x.shape[-2] % size or x.shape[-1] % size or needs_plain_operations():
        return F.avg_pool2d(x, size)
    if not x.requires_grad or not torch.is_grad_enabled():
        return F.avg_pool2d(x, size)  # PyTorch's bookkeeping of a function takes longer
    return _AvgPool2d.apply(x, size)


class _AvgPool2d(torch.autograd.Function):
    @staticmethod
    def forward(x: Tensor, size: int) -> Tensor:
        return F.avg_pool2d(x, size)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        ctx.size = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        k, g = ctx.size, grad_outputs[0].movedim(1, -1)
        N, h, w, C = g.shape
        # torch.compile would forget the memory of `out`, which has no derivative either.
        memory = None if is_traced(g) or g.requires_grad else native.empty(g, N, h, k, w, k, C)
        g_x = torch.div(g.reshape(N, h, 1, w, 1, C).expand(N, h, k, w, k, C), k**2, out=memory)
        return g_x.reshape(N, h * k, w * k, C).movedim(-1, 1), None
