"""Detect torch.compile and export tracing, torch.func transforms and CUDA-graph capture.

Tracers (torch.compile, torch.export, make_fx, dispatch modes) see an operation only through
PyTorch's dispatcher, so there the registered operations run; eager mode is spared their cost.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

PLAIN = (Tensor, nn.Parameter)
"""Tensor types that are not wrapper subclasses (tracers wrap: fake, functional tensors)."""
SECOND_DERIVATIVE = (
    b"the fused operations of rmploss have one derivative: for a second one run the reference, "
    b"with rmploss.ops.use_backend('reference')"
)


def is_traced(*tensors: Tensor | None) -> bool:
    """True if a tracer or a dispatch mode sees operations on these tensors."""
    if torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack():
        return True
    for x in tensors:  # noqa: SIM110  no frame of a generator in each call of an operation
        if x is not None and type(x) not in PLAIN:
            return True
    return False


_as_captured = [0]
"""How many blocks of `as_captured` are open."""


@contextmanager
def as_captured() -> Iterator[None]:
    """Inside the block, GPU operations run the code that a capture runs: its warm-up needs that.

    In all threads: backward runs in one of its own.
    """
    _as_captured[0] += 1
    try:
        yield
    finally:
        _as_captured[0] -= 1


def is_capturing(x: Tensor) -> bool:
    """True if work on x goes, or will go, into a CUDA graph: nothing may wait for the GPU."""
    return x.is_cuda and (_as_captured[0] > 0 or torch.cuda.is_current_stream_capturing())


def needs_plain_operations() -> str | None:
    """Why only PyTorch's own operations can run here; None if the fused ones can.

    The fused operations have one derivative, backward, and no form outside of PyTorch.
    """
    if torch.compiler.is_compiling():
        return _onnx()
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "torch.func and forward-mode derivatives need plain operations (use the reference)"
    if torch._C._get_tracing_state() is not None:
        return "torch.jit.trace needs plain operations (use the reference)"
    return None


def _onnx() -> str | None:
    """A reason inside torch.onnx.export, which traces with torch.export but not with Dynamo."""
    if torch.compiler.is_dynamo_compiling() or "torch.onnx" not in sys.modules:
        return None  # importing torch.onnx to ask it would take longer than tracing a layer
    if torch.onnx.is_in_onnx_export():
        return "ONNX has no form of the fused operations (use the reference)"
    return None


def differentiable_once(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Make a second derivative through what `backward(ctx, ...)` returns raise a clear error.

    PyTorch's `once_differentiable` raises only if the gradient that arrives depends on something.
    Where it is a constant, as that of a sum, it drops the derivative of the result by the saved
    tensors: a gradient penalty would lose its share without a word.
    """

    @wraps(backward)
    def run(ctx: Any, *arriving: Any) -> tuple[Any, ...]:
        with torch.no_grad():
            gradients = backward(ctx, *arriving)
        if not torch.is_grad_enabled():  # without create_graph there is no second derivative
            return gradients
        places = [i for i, g in enumerate(gradients) if isinstance(g, Tensor)]
        functions: Any = torch._C._functions  # pyright: ignore[reportAttributeAccessIssue]
        delayed = functions.DelayedError(SECOND_DERIVATIVE, len(places))
        guarded = delayed(*(gradients[i].detach().requires_grad_() for i in places))
        found = [*gradients]
        for i, g in zip(places, guarded, strict=True):
            found[i] = g
        return tuple(found)

    return run
