"""Detect torch.compile and export tracing, torch.func transforms and CUDA-graph capture.

Tracers (torch.compile, torch.export, make_fx, dispatch modes) see an operation only through
PyTorch's dispatcher, so there the registered operations run; eager mode is spared their cost.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, NoReturn

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from rmploss.errors import UserError

PLAIN = (Tensor, nn.Parameter)
"""Tensor types that are not wrapper subclasses (tracers wrap: fake, functional tensors)."""
SECOND_DERIVATIVE = (
    "this operation of rmploss has one derivative. LIF neurons and convolutions have a second "
    "one in the reference: with rmploss.ops.use_backend('reference')"
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
    """Make every derivative of what `backward(ctx, ...)` returns raise `UserError`.

    PyTorch's `once_differentiable` raises only if the gradient that arrives depends on something.
    Where it is a constant, as that of a sum, it drops the derivative of the result by the saved
    tensors: a gradient penalty would lose its share without a word. Of inputs that are not among
    the saved tensors `ctx.links` says where they are in the graph (`place_of`).
    """

    @wraps(backward)
    def run(ctx: Any, *arriving: Any) -> tuple[Any, ...]:
        with torch.no_grad():
            gradients = backward(ctx, *arriving)
        if not torch.is_grad_enabled():  # without create_graph there is no second derivative
            return gradients
        places = [i for i, g in enumerate(gradients) if isinstance(g, Tensor)]
        own = [gradients[i].detach().requires_grad_() for i in places]
        sources = (*ctx.saved_tensors, *arriving, *getattr(ctx, "links", ()))
        links = [x for x in sources if isinstance(x, Tensor) and x.requires_grad]
        guarded: Any = _Once.apply(len(own), *own, *links)
        found = [*gradients]
        for i, g in zip(places, guarded, strict=True):
            found[i] = g
        return tuple(found)

    return run


def place_of(x: Tensor) -> Tensor:
    """A number `[]` at the place of x in the graph, which keeps no memory of x."""
    return _Place.apply(x)  # pyright: ignore[reportReturnType]


class _Once(torch.autograd.Function):
    """The first tensors, as many as `count` says; no derivative by any of them."""

    @staticmethod
    def forward(ctx: Any, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return tuple(x.view_as(x) for x in tensors[:count])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> NoReturn:
        raise UserError(SECOND_DERIVATIVE)


class _Place(torch.autograd.Function):
    """A number that depends on x in the graph alone; nothing asks for its derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.new_empty(())

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> NoReturn:
        raise UserError(SECOND_DERIVATIVE)
