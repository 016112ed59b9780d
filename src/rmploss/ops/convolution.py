"""The operation `rmploss::spike_conv2d`: a convolution that keeps spikes for backward as bits.

As in layer.py, forward and backward stand here once, behind two doors: an `autograd.Function` in
eager mode, the registered operation where someone looks on. y has the type of x; the weight may be
float32 beside an x of half precision (autocast), and so is its gradient.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from rmploss.ops import bits, dense, layout
from rmploss.ops.kernels import KERNELS, Spatial, require, words
from rmploss.ops.once import differentiable_once
from rmploss.ops.tracing import is_traced

TYPES = (torch.float32, torch.float16, torch.bfloat16)
"""The types of x that kernels know."""


def convolve(
    provider: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    binary: bool = False,
) -> Tensor:
    """y `[N, C', H', W']` of x `[N, C, H, W]`, weight `[C', C, K, K]`, bias `[C']`.

    binary: x is promised to be all 0 and 1.
    """
    inputs: tuple[Any, ...] = (provider, x, weight, bias, stride, padding, binary)
    tensors = inputs[1:4]
    if is_traced(*tensors):
        return torch.ops.rmploss.spike_conv2d(*inputs)[0]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _SpikeConv2d.apply(*inputs)  # pyright: ignore[reportReturnType]
    return forward(*inputs[:-1])[0]


def plain(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> Tensor:
    """`convolve` by PyTorch, which keeps x as it is; maps are channels-last here, too."""
    return dense.convolve(Spatial.of(x.shape, weight, stride, padding), x, weight, bias)


def misfit(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> str | None:
    """Why these tensors are no convolution that the kernels know; None if they are."""
    given = [weight] if bias is None else [weight, bias]
    if x.dtype not in TYPES:
        return f"x is {x.dtype}, not float32 or half precision"
    if any(t.dtype not in (x.dtype, torch.float32) for t in given):
        return f"weight and bias are neither float32 nor {x.dtype} as x is"
    if any(t.device != x.device for t in given):
        return "the tensors are on different devices"
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        return f"a weight {list(weight.shape)} does not fit an input {list(x.shape)}"
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        return f"the bias has shape {list(bias.shape)}, not [{weight.shape[0]}]"
    if stride < 1 or padding < 0 or min(Spatial.of(x.shape, weight, stride, padding).out) < 1:
        return "the output would be empty"
    return None if x.numel() and weight.numel() else "the input is empty"


def forward(
    provider: str,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: int,
    padding: int,
    binary: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the bits of x and their number; -1 if x is not all 0 and 1. Fails if binary lied."""
    require(misfit(x, weight, bias, stride, padding))
    kernels, shape = KERNELS[provider], Spatial.of(x.shape, weight, stride, padding)
    packed, spikes = kernels.pack(layout.map_rows(x), binary)
    return kernels.convolve(shape, x, packed, spikes, weight, bias), packed, spikes


def backward(
    provider: str,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    spikes: Tensor,
    weight: Tensor,
    size: Sequence[int],
    stride: int,
    padding: int,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x `size` and of the weight, those that are needed."""
    kernels = KERNELS[provider]
    shape = Spatial.of(size, weight, stride, padding)
    require(_misfit(shape, g_y, x, bits, spikes, weight, size))
    need_x, need_weight = needs
    g_x, g_weight = kernels.convolve_backward(
        shape, g_y, x, bits, spikes, weight, (need_x, need_weight)
    )
    if g_weight is not None and g_weight.stride() != weight.stride():
        g_weight = torch.empty_like(weight).copy_(g_weight)
    return g_x, g_weight


def _misfit(
    shape: Spatial, g_y: Tensor, x: Tensor | None, bits: Tensor | None, spikes: Tensor,
    weight: Tensor, size: Sequence[int],
) -> str | None:  # fmt: skip
    """Which of the tensors that backward is given does not fit."""
    N, C, H, W = size
    for name, tensor, wanted in (
        ("gradient", g_y, (N, weight.shape[0], *shape.out)),
        ("input", x, (N, C, H, W)),
        ("bits", bits, (N * H * W, words(C))),
        ("number of bits", spikes, ()),
        ("weight", weight, (weight.shape[0], C, *weight.shape[2:])),
    ):
        if tensor is not None and tuple(tensor.shape) != wanted:
            return f"{name}: {list(tensor.shape)} is not {list(wanted)}"
    if weight.dtype not in (g_y.dtype, torch.float32):
        return f"a weight of {weight.dtype} beside a gradient of {g_y.dtype}"
    return "neither x nor its bits are given" if x is None and bits is None else None


# Autograd ----------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """What backward needs: x as bits if it is spikes, else as it is.

    What is traced has no values to look at: there, only what was promised is spikes.
    """
    ctx.provider, x, weight, _, ctx.stride, ctx.padding, binary = inputs
    _, packed, spikes = output
    ctx.set_materialize_grads(False)
    ctx.size = list(x.shape)
    kept = (None, packed) if bits.are_spikes(ctx.provider, x, spikes, binary) else (x, None)
    ctx.save_for_backward(*kept, spikes, weight)


def _setup(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """`_keep` for the registered operation, which gives on more than y."""
    ctx.mark_non_differentiable(*output[1:])
    _keep(ctx, inputs, output)


@differentiable_once
def _gradient(ctx: Any, g_y: Any, *_: Any) -> tuple[Any, ...]:
    x, bits, spikes, weight = ctx.saved_tensors
    need_x, need_weight, need_bias = ctx.needs_input_grad[1:4]
    run: Any = torch.ops.rmploss.spike_conv2d_backward if is_traced(g_y, x, weight) else backward
    g_x, g_weight = run(
        ctx.provider, g_y, x, bits, spikes, weight, ctx.size, ctx.stride, ctx.padding,
        [need_x, need_weight],
    )  # fmt: skip
    g_bias = g_y.sum((0, 2, 3), dtype=torch.float32) if need_bias else None
    gradients = (g_x if need_x else None, g_weight if need_weight else None, g_bias)
    return None, *gradients, None, None, None


class _SpikeConv2d(torch.autograd.Function):
    """The door of eager mode."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        *given, binary = inputs
        output = forward(*given, binary=bits.is_trusted(given[0], given[1], binary))
        _keep(ctx, inputs, output)
        return output[0]

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _gradient(ctx, *grad_outputs)


# torch.library -----------------------------------------------------------------------------------

LIBRARY = Library("rmploss", "FRAGMENT")
LIBRARY.define(
    "spike_conv2d(str provider, Tensor x, Tensor weight, Tensor? bias, SymInt stride, "
    "SymInt padding, bool binary=False) -> (Tensor y, Tensor bits, Tensor spikes)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.define(
    "spike_conv2d_backward(str provider, Tensor g_y, Tensor? x, Tensor? bits, Tensor spikes, "
    "Tensor weight, SymInt[] size, SymInt stride, SymInt padding, bool[] needs) "
    "-> (Tensor g_x, Tensor g_weight)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _backward(*inputs: Any) -> tuple[Tensor, Tensor]:
    """An operation returns tensors: empty ones for what is not needed."""
    g_x, g_weight = (inputs[1].new_empty(0) if g is None else g for g in backward(*inputs))
    return g_x, g_weight


LIBRARY.impl("spike_conv2d", forward, "CompositeExplicitAutograd")
LIBRARY.impl("spike_conv2d_backward", _backward, "CompositeExplicitAutograd")
register_autograd("rmploss::spike_conv2d", _gradient, setup_context=_setup, lib=LIBRARY)


@register_fake("rmploss::spike_conv2d", lib=LIBRARY)
def _(
    provider: str, x: Tensor, weight: Tensor, bias: Any, stride: int, padding: int,
    binary: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    shape = Spatial.of(x.shape, weight, stride, padding)
    size = (shape.images, shape.out_channels, *shape.out)
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows = shape.images * shape.height * shape.width
    bits = x.new_empty(rows, words(shape.channels), dtype=torch.int64)
    return y, bits, x.new_empty((), dtype=torch.int64)


@register_fake("rmploss::spike_conv2d_backward", lib=LIBRARY)
def _(
    provider: str, g_y: Tensor, x: Any, bits: Any, spikes: Tensor, weight: Tensor,
    size: Sequence[int], stride: int, padding: int, needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    g_x = g_y.new_empty(0)
    if needs[0]:
        options = {"dtype": g_y.dtype, "device": g_y.device}
        g_x = torch.empty(list(size), **options, memory_format=torch.channels_last)
    return g_x, torch.empty_like(weight) if needs[1] else g_y.new_empty(0)
