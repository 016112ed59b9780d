"""The operation `rmploss::lif` for autograd and torch.library: saved tensors, schemas.

Eager mode calls `LIF`, an `autograd.Function`; what traces calls the registered operation
(`tracing.is_traced`). Backward keeps y and no membrane: the reverse loop (README.md) computes it
again. A residual that is spikes is kept as bits, 1/32 of float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from rmploss.ops import layout
from rmploss.ops.lif.inputs import SCHEMA, LIFInputs, LIFOutputs, NeuronNumbers, Places
from rmploss.ops.lif.passes import KERNELS, NO_PLACES, Gradients, backward, forward
from rmploss.ops.spikes.op import pack_if_spikes
from rmploss.ops.tracing import differentiable_once, is_traced, place_of

OTHERS = ("statistics", "bits", "spike_count")
"""The outputs without a gradient, which stand before the `Places`."""


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save for backward: the inputs, of a residual that is spikes only the bits, the statistics."""
    given, out = LIFInputs(*inputs), LIFOutputs(*output)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(out.statistics, out.bits, out.spike_count)
    residual, bits = given.residual, given.residual_bits
    if residual is not None and bits is None and given.look:
        bits = pack_if_spikes(given.backend, residual)
    ctx.residual_dtype = None if residual is None else residual.dtype
    if bits is not None:
        residual = None
    ctx.save_for_backward(
        given.y, given.gain, given.bias, residual, bits, given.u, given.decay, given.threshold,
        out.statistics,
    )  # fmt: skip
    ctx.others = (given.backend, given.steps, given.eps, given.sync, given.scale, given.neuron)


@differentiable_once
def _gradient(ctx: Any, g_spikes: Any, g_moments: Any, g_last: Any, *others: Any) -> Any:
    y, gain, bias, residual, bits, u, decay, threshold, statistics = ctx.saved_tensors
    backend, steps, eps, sync, scale, neuron = ctx.others
    if bits is not None:  # of the residual itself only shape and type count
        residual = y.new_empty((), dtype=ctx.residual_dtype).expand(steps, *y.shape[1:])
    inputs = LIFInputs(
        backend, y, gain, bias, residual, bits, u, decay, threshold, steps, eps, sync, scale,
        None, None, 0.0, 0, neuron, False, False, False, False,
    )  # fmt: skip
    if not NeuronNumbers(*neuron).moments:
        g_moments = None
    needed = LIFInputs(*ctx.needs_input_grad)
    places = Places(*others[len(OTHERS) :]) if len(others) > len(OTHERS) else NO_PLACES
    traced = is_traced(y, g_spikes, g_moments, g_last)
    if traced:  # the registered operation has one gradient of the spikes
        g_spikes = places.added_to(g_spikes)
    arriving = (statistics, g_spikes, g_moments, g_last, bool(needed.decay or needed.threshold))
    if traced:
        g = Gradients(*torch.ops.rmploss.lif_backward(*inputs.schema, *arriving))
    else:
        g = backward(inputs, *arriving, places)
    g_bias, g_gain, g_decay, g_threshold = g.sums.unbind(0)
    nothing = LIFInputs(*(None for _ in inputs))  # pyright: ignore[reportArgumentType]
    return tuple(
        nothing._replace(
            y=g.y,
            gain=None if gain is None else g_gain,
            bias=None if bias is None else g_bias,
            residual=None if ctx.residual_dtype is None else g.residual,
            u=None if u is None else g.u,
            decay=g_decay,
            threshold=g_threshold,
        )
    )


def run(inputs: LIFInputs) -> tuple[Any, ...]:
    """The operation in eager mode, with gradients; returns what `LIF.forward` does."""
    out: Any = LIF.apply(*inputs)
    node, residual = out[0].grad_fn, inputs.residual
    if node is not None and residual is not None and residual.requires_grad:
        node.links = (place_of(residual),)  # its bits may be all that is kept of it
    return out


class LIF(torch.autograd.Function):
    """`run` for autograd."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Any, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """`LIFOutputs`, with `Places` behind them where the backend FORKS and there are bits.

        What backward needs is kept where a gradient is wanted.
        """
        output = tuple(forward(*inputs))
        if any(ctx.needs_input_grad):
            _keep(ctx, inputs, output)
        if KERNELS[inputs[0]].FORKS:
            given = LIFInputs(*inputs)
            if given.bits:
                return *output, *Places.of(given)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """The gradients of the inputs."""
        return _gradient(ctx, *grad_outputs)


# torch.library -----------------------------------------------------------------------------------

GRADIENTS = "Tensor statistics, Tensor? g_spikes, Tensor? g_moments, Tensor? g_last, bool constants"
LIBRARY = Library("rmploss", "FRAGMENT")


def _forward(*arguments: Any) -> tuple[Tensor, ...]:
    return tuple(forward(*arguments))


def _backward(*arguments: Any) -> tuple[Tensor, ...]:
    fields = len(LIFInputs._fields)
    return tuple(backward(LIFInputs(*arguments[:fields]), *arguments[fields:]))


for _name, _arguments, _results, _function in (
    ("lif", SCHEMA, LIFOutputs, _forward),
    ("lif_backward", f"{SCHEMA}, {GRADIENTS}", Gradients, _backward),
):
    _returns = ", ".join("Tensor" for _ in _results._fields)
    _schema = f"{_name}({_arguments}) -> ({_returns})"
    LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(_name, _function, "CompositeExplicitAutograd")
register_autograd("rmploss::lif", _gradient, setup_context=_keep, lib=LIBRARY)


@register_fake("rmploss::lif", lib=LIBRARY)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given = LIFInputs(*arguments)
    y, decay = given.y, given.decay
    C = y.shape[2]
    statistics = y.new_empty(0 if given.eps is None else (3, C), dtype=torch.float64)
    takes_moments = NeuronNumbers.read(given.neuron).moments
    moments = decay.new_empty(given.moments_shape if takes_moments else 0)
    if given.dense:
        spikes = layout.empty(y, given.steps)
    else:
        spikes = y.new_empty(()).expand(given.steps, *y.shape[1:])
    words = y.new_empty(0, dtype=torch.int64)
    if given.bits:
        rows = given.steps * y.shape[1:].numel() // C
        words = y.new_empty(rows, layout.words(C), dtype=torch.int64)
    count = y.new_empty((), dtype=torch.int64)
    last = layout.empty_state(y, decay) if given.last else decay.new_empty(0)
    return spikes, moments, last, statistics, words, count


@register_fake("rmploss::lif_backward", lib=LIBRARY)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given: Sequence[Any] = arguments[: len(LIFInputs._fields)]
    inputs = LIFInputs(*given)
    y, decay = inputs.y, inputs.decay
    has_residual = inputs.residual is not None or inputs.residual_bits is not None
    kind = inputs.current_dtype
    g_residual = layout.empty(y, inputs.steps, kind) if has_residual else y.new_empty(0)
    g_u = decay.new_empty(0) if inputs.u is None else layout.empty_state(y, decay)
    return layout.empty(y, y.shape[0]), g_residual, g_u, decay.new_empty(4, y.shape[2])
