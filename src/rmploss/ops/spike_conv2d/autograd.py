"""The operation `rmploss::spike_conv2d` for autograd and torch.library: kept spikes, schemas.

As in `lif/autograd.py`. y has the type of x; the weight may be float32 beside an x of half
precision (autocast), and so is its gradient.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from rmploss.ops.layout import words
from rmploss.ops.spike_conv2d.inputs import ConvInputs
from rmploss.ops.spike_conv2d.passes import ConvOutputs, backward, forward
from rmploss.ops.tracing import differentiable_once, is_traced, place_of


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save for backward: of spikes the bits, x of anything else, and the weight."""
    given, out = ConvInputs(*inputs), ConvOutputs(*output)
    ctx.set_materialize_grads(False)
    bits, count, x = given.bits, given.spike_count, None
    if bits is None:
        bits, count = out.bits, out.spike_count
        # `int` waits for a GPU. A traced tensor has no values to look at: it is saved itself.
        if not given.look or is_traced(given.x) or int(count) < 0:
            bits, x = None, given.x
    ctx.save_for_backward(x, bits, count, given.weight)
    ctx.keeps_x = x is not None
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


def run(inputs: ConvInputs) -> Tensor:
    """The operation in eager mode, with gradients."""
    y: Any = SpikeConv2d.apply(*inputs)
    node = y.grad_fn
    if node is not None and inputs.x.requires_grad and not node.keeps_x:
        node.links = (place_of(inputs.x),)
    return y


class SpikeConv2d(torch.autograd.Function):
    """`run` for autograd."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`passes.forward`, and what backward needs where a gradient is wanted."""
        output = forward(*inputs)
        if any(ctx.needs_input_grad):
            _keep(ctx, inputs, output)
        return output.y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the inputs."""
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
    """A registered operation returns tensors: an empty one for a gradient that is not needed."""
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
