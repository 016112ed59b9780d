"""Who looks on: tracers, transforms and CUDA graphs, in which tensors are more than their values.

Tracers (torch.compile, torch.export, make_fx, a dispatch mode) see an operation only through
PyTorch's dispatcher; everyone else is spared its cost.
"""

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

PLAIN = (Tensor, nn.Parameter)
"""Types without a mind of their own: tracers wrap tensors in subclasses (fake, functional)."""


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether an operation on these tensors has an onlooker."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    return any(x is not None and type(x) not in PLAIN for x in tensors)


def is_capturing(x: Tensor) -> bool:
    """Whether work on x goes into a CUDA graph, where nothing may wait for the GPU."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def is_transformed() -> bool:
    """Whether forward-mode derivatives or a transform of `torch.func` are under way.

    The fused operations have one derivative, backward; there, the reference runs.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0
