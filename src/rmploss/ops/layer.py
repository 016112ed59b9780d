"""The operation `rmploss::lif`: a layer of LIF neurons, with tdBN in front of them if eps is given.

Forward and backward stand here once, as functions of plain arguments. Two doors lead to them: an
`autograd.Function` in eager mode, and the operation registered with `torch.library` where someone
looks on (tracing.py). Backward keeps the input and no membrane: the reverse loop (README.md)
computes it again. A shortcut that is spikes is kept as bits, 1/32 of float32.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from rmploss.ops import bits, layout, norm
from rmploss.ops.collectives import ranks
from rmploss.ops.kernels import KERNELS, Current, Kernels, require, wide
from rmploss.ops.once import differentiable_once
from rmploss.ops.rule import NeuronOptions, Rule
from rmploss.ops.tracing import is_capturing, is_traced


def neurons(
    provider: str,
    rule: Rule,
    x: Tensor,
    u: Tensor | None,
    gain: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    repeats: int,
    neuron: NeuronOptions,
    eps: float | None = None,
    sync: bool = False,
    binary_residual: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes `[T, B, C, ...]`, moments `[4, C]`, last membrane `[B, C, ...]`, statistics `[3, C]`.

    The input current is gain x + bias + residual; with eps (x - mean) gain + bias + residual, where
    gain is multiplied by 1 / sqrt(var + eps). Statistics: mean, biased variance and number of
    values, float64, empty without eps. Moments are empty unless the rule asks for them.
    binary_residual: whether the residual is all 0 and 1, for certain; None: to be seen.
    """
    steps, dtype = x.shape[0] * repeats, wide(x.dtype)
    if residual is not None:
        if repeats > 1:  # a shortcut changes over time
            x = x.expand(steps, *x.shape[1:])
        if residual.dtype != x.dtype:
            residual = residual.to(dtype)
    constants = (_constant(neuron[name], x, dtype) for name in ("decay", "v_threshold"))
    affine = (None if v is None else v.to(dtype).contiguous() for v in (gain, bias))
    u = None if u is None else u.to(dtype)
    numbers = (steps, eps, sync)
    inputs: tuple[Any, ...] = (provider, x, *affine, residual, u, *constants, *numbers)
    tensors = inputs[1:8]
    if is_traced(*tensors):
        return torch.ops.rmploss.lif(*inputs, rule.numbers, binary_residual)
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _LIF.apply(*inputs, rule, binary_residual)  # pyright: ignore[reportReturnType]
    return forward(*inputs, rule=rule)


def _constant(value: float | Tensor, x: Tensor, dtype: torch.dtype) -> Tensor:
    """A constant as one number per channel `[C]`."""
    C = x.shape[2]
    if isinstance(value, Tensor):
        return value.to(dtype).expand(C).contiguous()
    return torch.full((C,), value, dtype=dtype, device=x.device)


def forward(
    provider: str,
    x: Tensor,
    gain: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    u: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    steps: int,
    eps: float | None,
    sync: bool,
    rule: Sequence[float],
    binary_residual: bool | None = None,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What `neurons` returns, from arguments of their final types.

    binary_residual matters for what is kept of the residual, not here.
    """
    kernels = KERNELS[provider]
    current = _current(kernels, x, gain, bias, residual, u, decay, threshold, steps)
    if eps is None:
        statistics = torch.empty(0, dtype=torch.float64, device=x.device)
    else:
        statistics = kernels.statistics(current.y)
        if ranks(sync) > 1:
            statistics = norm.over_ranks(statistics)
        current = _normalized(current, statistics, eps)
    spikes, moments, last = kernels.lif_forward(current, Rule.read(rule))
    spikes = layout.sequence(spikes, x).to(x.dtype)
    return layout.whole(spikes), moments, layout.whole(layout.state(last, x)), statistics


def backward(
    provider: str,
    x: Tensor,
    gain: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    u: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    statistics: Tensor,
    steps: int,
    eps: float | None,
    sync: bool,
    rule: Sequence[float],
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of x, residual and u (empty without them), and `[4, C]` of the rest.

    Those are of bias, gain, decay and threshold; of the last two only with `constants`. residual:
    as it was, or its bits.
    """
    kernels, rule = KERNELS[provider], Rule.read(rule)
    current = _current(kernels, x, gain, bias, residual, u, decay, threshold, steps)
    require(_misfit(x, decay, statistics, steps, eps, rule, g_spikes, g_moments, g_last))
    if eps is not None:
        current = _normalized(current, statistics, eps)
    g_current, g_start, sums = kernels.lif_backward(
        current,
        rule,
        layout.rows(g_spikes, current.y.dtype),
        layout.dense(g_moments),
        layout.state_rows(g_last),
        constants,
    )
    g_residual = x.new_empty(0) if residual is None else layout.sequence(g_current, x)
    if eps is not None:
        assert gain is not None
        totals = sums[:2].double()
        if ranks(sync) > 1:
            totals = totals.clone()  # a rank's own sums are what its weight and bias get
            dist.all_reduce(totals)
        in_place = residual is None and g_current.dtype == current.y.dtype
        g_y = g_current if in_place else torch.empty_like(current.y)
        kernels.norm_gradient(g_current, current.y, statistics, gain, totals, eps, g_y)
    elif gain is not None:
        g_y = g_current * gain
    else:  # an operation returns no tensor twice
        g_y = g_current if residual is None else g_current.clone()
    g_u = g_start if u is None else layout.state(g_start, x)
    return layout.sequence(g_y, x).to(x.dtype), g_residual, g_u, sums


def _current(
    kernels: Kernels, x: Tensor, gain: Tensor | None, bias: Tensor | None,
    residual: Tensor | None, u: Tensor | None, decay: Tensor, threshold: Tensor, steps: int,
) -> Current:  # fmt: skip
    """The input current of a layer without a norm, in rows; raises for what does not fit."""
    require(None if x.ndim > 2 and x.numel() else f"x has shape {list(x.shape)}")
    if residual is not None and residual.dtype != torch.int64:
        residual = layout.rows(residual, residual.dtype if kernels.reads_half else decay.dtype)
    y = layout.rows(x, x.dtype if kernels.reads_half else decay.dtype)
    state = layout.state_rows(u)
    current = Current(y, None, 0.0, gain, bias, residual, state, decay, threshold, steps)
    require(current.misfit())
    return current


def _normalized(current: Current, statistics: Tensor, eps: float) -> Current:
    """The input current after the norm (Eqs. 6-7)."""
    current = current._replace(statistics=statistics, eps=eps)
    require(current.misfit_of_norm())
    return current


def _misfit(
    x: Tensor, decay: Tensor, statistics: Tensor, steps: int, eps: float | None, rule: Rule,
    g_spikes: Tensor | None, g_moments: Tensor | None, g_last: Tensor | None,
) -> str | None:  # fmt: skip
    """Which of the tensors that only backward has does not fit x `[T, B, C, ...]`."""
    C = x.shape[2]
    for name, tensor, shape in (
        ("gradient of the spikes", g_spikes, (steps, *x.shape[1:])),
        ("gradient of the moments", g_moments, (4, C)),
        ("gradient of the last membrane", g_last, x.shape[1:]),
        ("statistics", statistics, (0,) if eps is None else (3, C)),
    ):
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            return f"{name}: {list(tensor.shape)} is not {list(shape)}"
    return None


# Autograd ----------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """What backward needs of the inputs and outputs of `forward`."""
    provider, x, gain, bias, residual, u, decay, threshold, *ctx.plain, binary = inputs
    ctx.provider = provider
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[3])
    kept = _smallest(provider, residual, binary)
    ctx.save_for_backward(x, gain, bias, kept, u, decay, threshold, output[3])


def _smallest(provider: str, residual: Tensor | None, binary: bool | None) -> Tensor | None:
    """What to keep of `[T, B, C, ...]` for backward: its bits if it is spikes, else itself.

    binary: whether it is, for certain. None: to be seen, but a traced tensor has no values to look
    at, and a CUDA graph cannot wait for them while it is captured: then it is kept as it is.
    """
    if residual is None or binary is False:
        return residual
    if binary is None and (is_traced(residual) or is_capturing(residual)):
        return residual
    trusted = bits.is_trusted(provider, residual, binary)
    packed, spikes = bits.pack(provider, residual, trusted)
    return packed if bits.are_spikes(provider, residual, spikes, binary) else residual


@differentiable_once
def _gradient(ctx: Any, g_spikes: Any, g_moments: Any, g_last: Any, _: Any) -> tuple[Any, ...]:
    x, gain, bias, residual, u, decay, threshold, statistics = ctx.saved_tensors
    rule = Rule.read(ctx.plain[-1])
    traced = is_traced(x, g_spikes, g_moments, g_last)
    run: Any = torch.ops.rmploss.lif_backward if traced else backward
    g_x, g_residual, g_u, sums = run(
        ctx.provider, x, gain, bias, residual, u, decay, threshold, statistics, *ctx.plain,
        g_spikes, g_moments if rule.moments else None, g_last, any(ctx.needs_input_grad[CONSTANTS]),
    )  # fmt: skip
    g_bias, g_gain, g_decay, g_threshold = sums.unbind(0)
    return (
        None, g_x, None if gain is None else g_gain, None if bias is None else g_bias,
        None if residual is None else g_residual, None if u is None else g_u,
        g_decay, g_threshold, None, None, None, None, None,
    )  # fmt: skip


class _LIF(torch.autograd.Function):
    """The door of eager mode."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        output = forward(*inputs)
        _keep(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        return _gradient(ctx, *grad_outputs)


# torch.library -----------------------------------------------------------------------------------

CONSTANTS = slice(6, 8)
"""Where decay and threshold stand among the arguments."""
TENSORS = (
    "str provider, Tensor x, Tensor? gain, Tensor? bias, Tensor? residual, Tensor? u, "
    "Tensor decay, Tensor threshold"
)
NUMBERS = "SymInt steps, float? eps, bool sync, float[] rule"
GRADIENTS = "Tensor? g_spikes, Tensor? g_moments, Tensor? g_last, bool constants"
RETURNS = "(Tensor, Tensor, Tensor, Tensor)"
SCHEMAS = {
    "lif": f"({TENSORS}, {NUMBERS}, bool? binary_residual=None) -> {RETURNS}",
    "lif_backward": f"({TENSORS}, Tensor statistics, {NUMBERS}, {GRADIENTS}) -> {RETURNS}",
}
LIBRARY = Library("rmploss", "FRAGMENT")
for _name, _run in (("lif", forward), ("lif_backward", backward)):
    LIBRARY.define(_name + SCHEMAS[_name], tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(_name, _run, "CompositeExplicitAutograd")
register_autograd("rmploss::lif", _gradient, setup_context=_keep, lib=LIBRARY)


@register_fake("rmploss::lif", lib=LIBRARY)
def _(
    provider: str, x: Tensor, gain: Any, bias: Any, residual: Any, u: Any, decay: Tensor,
    threshold: Any, steps: int, eps: float | None, sync: bool, rule: Sequence[float],
    binary_residual: bool | None = None,
) -> tuple[Tensor, ...]:  # fmt: skip
    C = x.shape[2]
    statistics = x.new_empty(0 if eps is None else (3, C), dtype=torch.float64)
    moments = decay.new_empty((4, C) if Rule.read(rule).moments else 0)
    return layout.empty(x, steps), moments, layout.empty_state(x, decay), statistics


@register_fake("rmploss::lif_backward", lib=LIBRARY)
def _(
    provider: str, x: Tensor, gain: Any, bias: Any, residual: Any, u: Any, decay: Tensor,
    threshold: Any, statistics: Any, steps: int, *_: Any,
) -> tuple[Tensor, ...]:  # fmt: skip
    nothing = x.new_empty(0)
    g_residual = nothing if residual is None else layout.empty(x, steps, decay.dtype)
    g_u = decay.new_empty(0) if u is None else layout.empty_state(x, decay)
    return layout.empty(x, x.shape[0]), g_residual, g_u, decay.new_empty(4, x.shape[2])
