"""The weight of a convolution on a GPU, once per forward in the type and layout that cuDNN reads.

backward: the gradient in the type and layout of the parameter, in one pass
"""

from typing import Any

import torch
from torch import Tensor

from rmploss.ops.tracing import is_traced


def as_read(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight `[C', C, K, K]` of that type, channels last; kept from forward to backward."""
    if is_traced(weight):
        return weight.to(dtype)
    if weight.dtype == dtype and weight.is_contiguous(memory_format=torch.channels_last):
        return weight
    return _AsRead.apply(weight, dtype)  # pyright: ignore[reportReturnType]


class _AsRead(torch.autograd.Function):
    @staticmethod
    def forward(weight: Tensor, dtype: torch.dtype) -> Tensor:
        return weight.to(dtype, memory_format=torch.channels_last)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        weight = inputs[0]
        ctx.layout = (weight.shape, weight.stride())
        ctx.dtype = weight.dtype

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        g = grad_outputs[0]
        if g.dtype == ctx.dtype and g.stride() == ctx.layout[1]:
            return g, None
        return torch.empty_strided(*ctx.layout, dtype=ctx.dtype, device=g.device).copy_(g), None
