"""Sums and collections over the ranks of a process group, with their gradient."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def ranks(sync: bool = True) -> int:
    """How many ranks share a sum: those of the process group; 1 without one or without sync."""
    return dist.get_world_size() if sync and dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(x: Tensor) -> Tensor:
    """The sum of x over all ranks, any shape; its gradient is the sum of all ranks' gradients."""
    return _AllReduceSum.apply(x)


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return all_reduce_sum(grad_outputs[0])


def all_gather(x: Tensor) -> Tensor:
    """The x of all ranks `[ranks, ...]`; its gradient is the sum of all ranks' gradients of it."""
    return _AllGather.apply(x)


class _AllGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        everyone = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(everyone, x.contiguous())
        return torch.stack(everyone)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> Tensor:
        return all_reduce_sum(grad_outputs[0])[dist.get_rank()]
