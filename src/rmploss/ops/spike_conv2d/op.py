"""The operation `rmploss::spike_conv2d`: a convolution that keeps spikes for backward as bits.

As in `lif/op.py`, forward and backward stand here once: eager mode reaches them through an
`autograd.Function`, what traces through the registered operation. y has the type of x; the weight
may be float32 beside an x of half precision (autocast), and so is its gradient.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from rmploss.errors import UserError
from rmploss.ops import backends
from rmploss.ops.layout import words
from rmploss.ops.spike_conv2d import dense, native, reference, triton
from rmploss.ops.spike_conv2d.flops import register_formulas
from rmploss.ops.spike_conv2d.inputs import TYPES, ConvInputs, Spatial
from rmploss.ops.spikes.op import pack
from rmploss.ops.spikes.value import Spikes
from rmploss.ops.tracing import differentiable_once, is_capturing, is_traced


class Kernels(Protocol):
    """What a backend's file implements: `native.py` and `triton.py` beside this one."""

    def convolve(
        self,
        shape: Spatial,
        x: Tensor | None,
        bits: Tensor | None,
        count: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """y `[N, C', H', W']` of that type; x or its bits are given, or both."""
        ...

    def convolve_backward(
        self,
        shape: Spatial,
        g_y: Tensor,
        x: Tensor | None,
        bits: Tensor | None,
        count: Tensor,
        weight: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and the weight, those that are needed; x or its bits are given.

        They have the types of g_y and of the weight.
        """
        ...

    def reads_bits(self, shape: Spatial, count: Tensor) -> bool:
        """True if forward reads the bits of x, and no number of it."""
        ...


KERNELS: dict[str, Kernels] = {"cpu": native, "triton": triton}  # pyright: ignore[reportAssignmentType]
"""Backend -> its kernels."""


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
        False keeps it as it is, as do traced and captured graphs, in which there are no values.
    """
    if isinstance(x, Spikes):
        return _of_spikes(x, weight, bias, stride, padding, backend)
    name = backends.choose(backend, x.device, x.dtype)
    if name == "reference":
        return reference.spike_conv2d(x, weight, bias, stride=stride, padding=padding)
    x, autocast = _autocast(x)
    inputs = ConvInputs(name, x, None, None, weight, bias, stride, padding, True, look)
    return _run(inputs, backend, autocast)


def _of_spikes(
    x: Spikes, weight: Tensor, bias: Tensor | None, stride: int, padding: int, backend: str
) -> Tensor:
    """`spike_conv2d` of `Spikes`: of their bits, unless they may have been changed."""
    if x.ndim != 5:
        raise UserError(f"spikes have shape {list(x.shape)}; a convolution takes [T, B, C, H, W]")
    name, steps = backends.choose(backend, x.device, x.dtype), x.shape[:2]
    known = None
    if name != "reference" and (name == "cpu" or torch.is_grad_enabled()):
        known = x.bits
    if known is not None and _autocast(x.edge)[0] is x.edge:
        edge, (bits, count), dense = x.edge.flatten(0, 1), known, x.is_dense
        inputs = ConvInputs(name, edge, bits, count, weight, bias, stride, padding, dense, False)
        if not inputs.problem():
            if not dense and not KERNELS[name].reads_bits(inputs.shape, count):
                inputs = inputs._replace(x=x.read().flatten(0, 1), is_dense=True)
            autocast = torch.is_autocast_enabled(edge.device.type)
            return _run(inputs, backend, autocast).unflatten(0, steps)
    options: Any = {"stride": stride, "padding": padding, "backend": backend}
    flat = x.read().flatten(0, 1)
    return spike_conv2d(flat, weight, bias, **options, look=False).unflatten(0, steps)


def _autocast(x: Tensor) -> tuple[Tensor, bool]:
    """x in the type of autocast, and whether that is on."""
    if not torch.is_autocast_enabled(x.device.type) or x.dtype not in TYPES:
        return x, False
    return x.to(torch.get_autocast_dtype(x.device.type)), True


def _run(inputs: ConvInputs, backend: str, autocast: bool) -> Tensor:
    """y `[N, C', H', W']` by the kernels, or by PyTorch where they cannot."""
    problem, x, weight = inputs.problem(), inputs.x, inputs.weight
    if not autocast and weight.dtype != x.dtype:
        problem = f"the weight is {weight.dtype}, x is {x.dtype}"
    if problem:
        options: Any = {"stride": inputs.stride, "padding": inputs.padding}
        y = reference.spike_conv2d(x, weight, inputs.bias, **options)
        if backends.is_named(backend):  # what fits no convolution at all has raised by now
            raise UserError(f"backend {inputs.backend!r} cannot run this convolution: {problem}")
        return y
    if inputs.backend != "cpu" and inputs.bits is None and not _looks(inputs):
        return dense.convolve(inputs.shape, x, weight, inputs.bias)
    if is_traced(x, weight):
        register_formulas()
        return torch.ops.rmploss.spike_conv2d(*inputs)[0]
    if torch.is_grad_enabled():
        return _SpikeConv2d.apply(*inputs)  # pyright: ignore[reportReturnType]
    return forward(*inputs).y


def _looks(inputs: ConvInputs) -> bool:
    """True if x is looked at; torch.compile cannot trace the question for a capture."""
    if not inputs.look or not torch.is_grad_enabled():
        return False
    return not is_traced(inputs.x) and not is_capturing(inputs.x)


class ConvOutputs(NamedTuple):
    """y `[N, C', H', W']`; what looking found: the bits of x, or empty, and their number or -1."""

    y: Tensor
    bits: Tensor
    spike_count: Tensor


def forward(*arguments: Any) -> ConvOutputs:
    """The outputs of the `ConvInputs` whose fields are given."""
    inputs = ConvInputs(*arguments)
    problem = inputs.problem()
    if problem:
        raise UserError(problem)
    x, bits, count = inputs.x, inputs.bits, inputs.spike_count
    found = x.new_empty(0, dtype=torch.int64)
    if bits is None and inputs.look:
        bits, count = found, looked = pack(inputs.backend, x.unsqueeze(0))
    elif bits is None:
        count = looked = torch.full((), -1, dtype=torch.int64, device=x.device)
    else:
        looked = x.new_empty((), dtype=torch.int64)
    assert count is not None
    y = KERNELS[inputs.backend].convolve(
        inputs.shape,
        x if inputs.is_dense else None,
        bits,
        count,
        inputs.weight,
        inputs.bias,
        x.dtype,
    )
    return ConvOutputs(y, found, looked)


def backward(
    backend: str,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
    size: Sequence[int],
    stride: int,
    padding: int,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x `size` and of the weight, those that are needed."""
    shape = Spatial.of(size, weight, stride, padding)
    _check_gradients(shape, g_y, x, bits, count, weight)
    need_x, need_weight = needs
    g_x, g_weight = KERNELS[backend].convolve_backward(
        shape, g_y, x, bits, count, weight, (need_x, need_weight)
    )
    if g_weight is not None and g_weight.stride() != weight.stride():
        g_weight = torch.empty_like(weight).copy_(g_weight)
    return g_x, g_weight


def _check_gradients(
    shape: Spatial,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
) -> None:
    """Raise `UserError` for tensors of backward that do not fit."""
    N, C, H, W = shape[:4]
    for name, tensor, wanted in (
        ("gradient", g_y, (N, weight.shape[0], *shape.out)),
        ("input", x, (N, C, H, W)),
        ("bits", bits, (N * H * W, words(C))),
        ("number of bits", count, ()),
        ("weight", weight, (weight.shape[0], C, *weight.shape[2:])),
    ):
        if tensor is not None and tuple(tensor.shape) != wanted:
            raise UserError(f"{name}: {list(tensor.shape)} is not {list(wanted)}")
    if weight.dtype not in (g_y.dtype, torch.float32):
        raise UserError(f"a weight of {weight.dtype} beside a gradient of {g_y.dtype}")
    if x is None and bits is None:
        raise UserError("neither x nor its bits are given")


# Autograd ----------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save for backward: of spikes the bits, x of anything else, and the weight."""
    given, out = ConvInputs(*inputs), ConvOutputs(*output)
    ctx.set_materialize_grads(False)
    bits, count, x = given.bits, given.spike_count, None
    if bits is None:
        bits, count = out.bits, out.spike_count
        # Looking is over: on a GPU it waits. A traced tensor has no values, and is kept as it is.
        if not given.look or is_traced(given.x) or int(count) < 0:
            bits, x = None, given.x
    ctx.save_for_backward(x, bits, count, given.weight)
    ctx.others = (given.backend, list(given.x.shape), given.stride, given.padding)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """`_keep` for the registered operation, which returns more than y."""
    ctx.mark_non_differentiable(*output[1:])
    _keep(ctx, inputs, output)


@differentiable_once
def _gradient(ctx: Any, g_y: Any, *_: Any) -> tuple[Any, ...]:
    x, bits, count, weight = ctx.saved_tensors
    backend, size, stride, padding = ctx.others
    needs = ConvInputs(*ctx.needs_input_grad)
    run: Any = torch.ops.rmploss.spike_conv2d_backward if is_traced(g_y, x, weight) else backward
    wanted = [bool(needs.x), bool(needs.weight)]
    g_x, g_weight = run(backend, g_y, x, bits, count, weight, size, stride, padding, wanted)
    nothing = ConvInputs(*(None for _ in needs))  # pyright: ignore[reportArgumentType]
    return tuple(
        nothing._replace(
            x=g_x if needs.x else None,
            weight=g_weight if needs.weight else None,
            bias=g_y.sum((0, 2, 3), dtype=torch.float32) if needs.bias else None,
        )
    )


class _SpikeConv2d(torch.autograd.Function):
    """The operation in eager mode."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        output = forward(*inputs)
        if any(ctx.needs_input_grad):
            _keep(ctx, inputs, output)
        return output.y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _gradient(ctx, *grad_outputs)


# torch.library -----------------------------------------------------------------------------------

LIBRARY = Library("rmploss", "FRAGMENT")
LIBRARY.define(
    "spike_conv2d(str backend, Tensor x, Tensor? bits, Tensor? spike_count, Tensor weight, "
    "Tensor? bias, SymInt stride, SymInt padding, bool is_dense, bool look) "
    "-> (Tensor y, Tensor bits, Tensor spike_count)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "spike_conv2d_backward(str backend, Tensor g_y, Tensor? x, Tensor? bits, Tensor spike_count, "
    "Tensor weight, SymInt[] size, SymInt stride, SymInt padding, bool[] needs) "
    "-> (Tensor g_x, Tensor g_weight)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(forward(*arguments))


def _backward(*inputs: Any) -> tuple[Tensor, Tensor]:
    """An operation returns tensors: empty ones for what is not needed."""
    g_x, g_weight = (inputs[1].new_empty(0) if g is None else g for g in backward(*inputs))
    return g_x, g_weight


LIBRARY.impl("spike_conv2d", _forward, "CompositeExplicitAutograd")
LIBRARY.impl("spike_conv2d_backward", _backward, "CompositeExplicitAutograd")
register_autograd("rmploss::spike_conv2d", _gradient, setup_context=_setup, lib=LIBRARY)


@register_fake("rmploss::spike_conv2d", lib=LIBRARY)
def _(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    given = ConvInputs(*arguments)
    shape, x = given.shape, given.x
    size = (shape.images, shape.out_channels, *shape.out)
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    found = x.new_empty(0, dtype=torch.int64)
    if given.bits is None and given.look:
        rows = shape.images * shape.height * shape.width
        found = x.new_empty(rows, words(shape.channels), dtype=torch.int64)
    return y, found, x.new_empty((), dtype=torch.int64)


@register_fake("rmploss::spike_conv2d_backward", lib=LIBRARY)
def _(
    backend: str, g_y: Tensor, x: Any, bits: Any, count: Tensor, weight: Tensor,
    size: Sequence[int], stride: int, padding: int, needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    g_x = g_y.new_empty(0)
    if needs[0]:
        options = {"dtype": g_y.dtype, "device": g_y.device}
        g_x = torch.empty(list(size), **options, memory_format=torch.channels_last)
    return g_x, torch.empty_like(weight) if needs[1] else g_y.new_empty(0)
