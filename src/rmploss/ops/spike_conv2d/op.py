"""The convolution of spikes as a function."""

from typing import Any

import torch
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.ops import backends
from rmploss.ops.spike_conv2d import dense, reference
from rmploss.ops.spike_conv2d.autograd import run
from rmploss.ops.spike_conv2d.flops import register_formulas
from rmploss.ops.spike_conv2d.inputs import BAD, TYPES, ConvInputs, require_fit
from rmploss.ops.spike_conv2d.passes import KERNELS, forward
from rmploss.ops.spike_conv2d.weights import as_read
from rmploss.ops.spikes.value import Spikes
from rmploss.ops.tracing import is_capturing, is_traced


def spike_conv2d(
    x: Tensor | Spikes,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    look: bool = True,
    backend: str = "auto",
) -> Tensor:
    """The convolution of spikes, or of anything else: as `torch.nn.functional.conv2d`.

    For finite x and weight and gradients below 1e36. Backward keeps spikes as bits, and on the CPU
    a sparse x is convolved event by event. y has the type of x, or autocast's; in float64 it is
    PyTorch's own convolution. Raises `UserError`.

    x: `[N, C, H, W]`, or `Spikes` `[T, B, C, H, W]`; y has the same leading dimensions.
    weight: `[C', C, K, K]`.
    bias: `[C']`.
    stride, padding: of both dimensions.
    look: whether a tensor is looked at for being all 0 and 1. On a GPU that waits for it, once;
        False saves the tensor itself, as do traced and captured graphs, which have no values.
    """
    if isinstance(x, Spikes):
        return _of_spikes(x, weight, bias, stride, padding, backend)
    for given, tensor in (("x", x), ("weight", weight)):
        if not isinstance(tensor, Tensor):
            fix = "torch.as_tensor(x)" if hasattr(tensor, "__array__") else "a tensor"
            what = "is no tensor"
            raise UserError(BAD, [Problem(f"{given} is a {type(tensor).__name__}", what, fix)])
    name, _ = backends.choose(backend, x.device, x.dtype)
    if name == "reference":
        require_fit(x, weight, bias, (stride, stride), (padding, padding))
        return reference.spike_conv2d(x, weight, bias, stride=stride, padding=padding)
    cast = _autocast_type(x)
    x = x if cast is None else x.to(cast)
    inputs = ConvInputs(name, x, None, None, weight, bias, stride, padding, True, look)
    return _run(inputs, backend, cast is not None)


def _of_spikes(
    x: Spikes, weight: Tensor, bias: Tensor | None, stride: int, padding: int, backend: str
) -> Tensor:
    """`spike_conv2d` of `Spikes`: of their bits, unless they may have been changed."""
    if x.ndim != 5:
        raise UserError(f"spikes have shape {list(x.shape)}; a convolution takes [T, B, C, H, W]")
    name, _ = backends.choose(backend, x.device, x.dtype)
    steps = x.shape[:2]
    known = None
    if name != "reference" and (name == "cpu" or torch.is_grad_enabled()):
        known = x.bits
    cast = _autocast_type(x.edge)
    if known is not None and cast in (None, x.dtype):
        edge, (bits, count), dense = x.edge.flatten(0, 1), known, x.is_dense
        inputs = ConvInputs(name, edge, bits, count, weight, bias, stride, padding, dense, False)
        if not inputs.problem():
            if not dense and not KERNELS[name].reads_bits(inputs.shape, count):
                inputs = inputs._replace(x=x.read().flatten(0, 1), is_dense=True)
            return _run(inputs, backend, cast is not None).unflatten(0, steps)
    options: Any = {"stride": stride, "padding": padding, "backend": backend}
    flat = x.read().flatten(0, 1)
    return spike_conv2d(flat, weight, bias, **options, look=False).unflatten(0, steps)


def _autocast_type(x: Tensor) -> torch.dtype | None:
    """The type in which autocast convolves x; None where it is off or leaves x alone."""
    if not torch.is_autocast_enabled(x.device.type) or x.dtype not in TYPES:
        return None
    return torch.get_autocast_dtype(x.device.type)


def _run(inputs: ConvInputs, backend: str, autocast: bool) -> Tensor:
    """y `[N, C', H', W']` by the kernels, or by PyTorch where they cannot."""
    problem, x, weight = inputs.problem(), inputs.x, inputs.weight
    if not autocast and weight.dtype != x.dtype:
        problem = f"the weight is {weight.dtype}, x is {x.dtype}"
    if problem:
        options: Any = {"stride": inputs.stride, "padding": inputs.padding}
        require_fit(x, weight, inputs.bias, (inputs.stride,) * 2, (inputs.padding,) * 2)
        y = reference.spike_conv2d(x, weight, inputs.bias, **options)
        if backends.is_named(backend):  # what fits no convolution at all has raised by now
            raise UserError(f"backend {inputs.backend!r} cannot run this convolution: {problem}")
        return y
    if inputs.backend != "cpu":
        inputs = inputs._replace(weight=as_read(weight, x.dtype))
        if inputs.bits is None and not _looks(inputs):
            return dense.convolve(inputs.shape, x, inputs.weight, inputs.bias)
    if is_traced(x, weight):
        register_formulas()
        return torch.ops.rmploss.spike_conv2d(*inputs)[0]
    if torch.is_grad_enabled():
        return run(inputs)
    return forward(*inputs).y


def _looks(inputs: ConvInputs) -> bool:
    """True if x is looked at; torch.compile cannot trace the question for a capture."""
    if not inputs.look or not torch.is_grad_enabled():
        return False
    return not is_traced(inputs.x) and not is_capturing(inputs.x)
