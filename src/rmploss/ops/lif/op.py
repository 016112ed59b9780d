"""The operation `rmploss::lif`: a layer of LIF neurons, with tdBN in front of them if eps is given.

Forward and backward stand here once. Eager mode reaches them through an `autograd.Function`; what
traces reaches them through the operation registered with `torch.library` (`tracing.is_traced`).
Backward keeps y and no membrane: the reverse loop (README.md) computes it again. A residual that is
spikes is kept as bits, 1/32 of float32.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, Unpack

import torch
import torch.distributed as dist
from torch import Tensor
from torch.library import Library, register_autograd, register_fake

from rmploss.errors import UserError
from rmploss.ops import backends, layout
from rmploss.ops.collectives import ranks
from rmploss.ops.lif import native, reference, tdbn, triton
from rmploss.ops.lif.inputs import (
    SCHEMA,
    LIFInputs,
    LIFOutputs,
    LIFRows,
    NeuronNumbers,
    NeuronOptions,
)
from rmploss.ops.spikes.op import pack_if_spikes
from rmploss.ops.spikes.value import Spikes, dense_of
from rmploss.ops.tracing import differentiable_once, is_traced


class Kernels(Protocol):
    """What a backend's file implements: `native.py` and `triton.py` beside this one.

    READS_HALF: y, residual and the gradient of the spikes may be of half precision.
    WRITES_DENSE: spikes are written as numbers even where bits are wanted, as the convolutions of
    this backend read numbers.
    """

    READS_HALF: bool
    WRITES_DENSE: bool

    def forward(self, rows: LIFRows, dense: bool, bits: bool) -> tuple[Tensor, ...]:
        """Spikes `[T, R, C]`, moments `[4, C]`, last u `[R, C]`, bits and their number.

        Spikes, moments and bits are empty if not asked for.
        """
        ...

    def backward(
        self,
        rows: LIFRows,
        g_spikes: Tensor | None,
        g_moments: Tensor | None,
        g_last: Tensor | None,
        constants: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The gradients of x `[T, R, C]` and of start `[R, C]`, and sums `[4, C]`.

        Of a static y the gradient is summed, `[1, R, C]`; without a start its gradient is empty.
        The sums are the gradients of bias, gain, decay and threshold; the last two need not be
        right without `constants`.
        """
        ...

    def statistics(self, y: Tensor) -> Tensor:
        """Mean, biased variance and number of values per channel, float64 `[3, C]`."""
        ...

    def norm_gradient(self, rows: LIFRows, g_x: Tensor, sums: Tensor, out: Tensor) -> None:
        """out = gain inverse (g_x - S_1 / n - z S_2 / n), z = (y - mean) inverse: of Eqs. 6-7.

        sums: S_1 = sum g_x and S_2 = sum g_x z over all n values, float64 `[2, C]`. out has the
        type of y and may be g_x.
        """
        ...


KERNELS: dict[str, Kernels] = {"cpu": native, "triton": triton}  # pyright: ignore[reportAssignmentType]
"""Backend -> its kernels."""


def lif(
    x: Tensor,
    u: Tensor | None = None,
    *,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | Spikes | None = None,
    repeats: int = 1,
    as_spikes: bool = False,
    backend: str = "auto",
    **neuron: Unpack[NeuronOptions],
) -> tuple[Any, Tensor | None, Tensor]:
    """LIF neurons over time (Eqs. 1-3): spikes `[T, B, C, ...]`, moments `[4, C]` or None, last u.

    The input current is gain x + bias + residual. The membrane is float32 at least, also for
    half-precision input; spikes have the type of x. All is dimensionless. Raises `UserError`.

    x: `[T, B, C, ...]`, or `[1, B, C, ...]` that stands for `repeats` equal steps.
    u: the membrane before the first step `[B, C, ...]`; None for rest.
    gain, bias: `[C]`.
    residual: `[T, B, C, ...]`.
    as_spikes: return the spikes as `Spikes` where the backend has bits, instead of a tensor.
    """
    options: Any = {"gain": gain, "bias": bias, "residual": residual, "repeats": repeats}
    return lif_layer(x, u, **options, as_spikes=as_spikes, backend=backend, neuron=neuron)[:3]


def norm_lif(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    u: Tensor | None = None,
    *,
    eps: float,
    residual: Tensor | Spikes | None = None,
    repeats: int = 1,
    sync: bool = False,
    as_spikes: bool = False,
    backend: str = "auto",
    **neuron: Unpack[NeuronOptions],
) -> tuple[Any, Tensor | None, Tensor, Tensor, Tensor]:
    """tdBN in training (Eqs. 6-7), the shortcut and `lif` (Eqs. 1-3), in two passes over y.

    Returns what `lif` returns, and mean and biased variance of y per channel `[C]`, without
    gradient. Backward keeps y, and of a residual that is spikes only the bits.

    y: `[T, B, C, ...]`, the convolution's output.
    weight, bias: `[C]`; the weight times alpha V_th.
    residual: `[T, B, C, ...]`, added to the normalized y.
    sync: mean and variance over all ranks.
    u, repeats, as_spikes: as in `lif`.
    """
    options: Any = {"residual": residual, "repeats": repeats, "as_spikes": as_spikes}
    return lif_layer(
        y, u, gain=weight, bias=bias, eps=eps, sync=sync, **options, backend=backend, neuron=neuron
    )


def lif_layer(
    x: Tensor,
    u: Tensor | None = None,
    *,
    neuron: NeuronOptions,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | Spikes | None = None,
    repeats: int = 1,
    eps: float | None = None,
    sync: bool = False,
    as_spikes: bool = False,
    look: bool = True,
    backend: str = "auto",
) -> tuple[Any, Tensor | None, Tensor, Any, Any]:
    """What `norm_lif` returns; without eps what `lif` returns, and None twice.

    The arguments are those of `norm_lif`, with eps, and of `lif`, without; look: as in `LIFInputs`.
    """
    name = backends.choose(backend, x.device, x.dtype)
    numbers = None if name == "reference" else NeuronNumbers.of(neuron)
    if isinstance(numbers, str):
        if backends.is_named(backend):
            raise UserError(f"backend {name!r} cannot run: {numbers}")
        numbers = None
    if numbers is None:
        return _by_reference(x, u, gain, bias, residual, repeats, eps, sync, neuron)
    kernels, traced = KERNELS[name], is_traced(x, gain, bias)
    inputs = LIFInputs.of(
        name,
        numbers,
        neuron,
        x,
        u=u,
        gain=gain,
        bias=bias,
        residual=residual,
        repeats=repeats,
        eps=eps,
        sync=sync,
        dense=not as_spikes or traced or kernels.WRITES_DENSE,
        bits=as_spikes and (not kernels.WRITES_DENSE or torch.is_grad_enabled()),
        look=look,
    )
    if traced:
        inputs.check()
        out = LIFOutputs(*torch.ops.rmploss.lif(*inputs.schema))
    elif torch.is_grad_enabled():
        out = LIFOutputs(*_LIF.apply(*inputs))  # pyright: ignore[reportGeneralTypeIssues]
    else:
        out = forward(*inputs)
    moments, spec = None, neuron.get("moments")
    if spec is not None:
        moments = out.moments if spec.differentiable else out.moments.detach()
    spikes: Any = out.spikes
    if as_spikes:
        found = (out.bits, out.spike_count) if inputs.bits else None
        spikes = Spikes(name, spikes, found, is_dense=inputs.dense)
    mean = var = None
    if eps is not None:
        mean, var, _ = out.statistics.to(out.u.dtype).unbind(0)
    return spikes, moments, out.u, mean, var


def _by_reference(
    x: Tensor,
    u: Tensor | None,
    gain: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | Spikes | None,
    repeats: int,
    eps: float | None,
    sync: bool,
    neuron: NeuronOptions,
) -> tuple[Any, Tensor | None, Tensor, Any, Any]:
    """The same by the equations, which take any type."""
    shortcut = dense_of(residual)
    LIFInputs.of(
        "reference", (), neuron, x, u=u, gain=gain, bias=bias, residual=shortcut, repeats=repeats,
        eps=eps, sync=sync, dense=True, bits=False, look=False,
    ).check()  # fmt: skip
    wide = layout.at_least_single(x)
    if eps is None:
        spikes, moments, u = reference.lif(
            wide, u, gain=gain, bias=bias, residual=shortcut, repeats=repeats, **neuron
        )
        return spikes.to(x.dtype), moments, u, None, None
    assert gain is not None
    assert bias is not None
    spikes, moments, u, mean, var = reference.norm_lif(
        wide, gain.to(wide.dtype), bias.to(wide.dtype), u, eps=eps, residual=shortcut,
        repeats=repeats, sync=sync, **neuron,
    )  # fmt: skip
    return spikes.to(x.dtype), moments, u, mean, var


def forward(*arguments: Any) -> LIFOutputs:
    """The outputs of the `LIFInputs` whose fields are given."""
    inputs = LIFInputs(*arguments)
    inputs.check()
    kernels, y = KERNELS[inputs.backend], inputs.y
    rows = LIFRows.of(inputs, kernels.READS_HALF)
    statistics = torch.empty(0, dtype=torch.float64, device=y.device)
    if inputs.eps is not None:
        statistics = kernels.statistics(rows.y)
        if ranks(inputs.sync) > 1:
            statistics = tdbn.over_ranks(statistics)
        rows = rows._replace(statistics=statistics, eps=inputs.eps)
    spikes, moments, last, bits, count = kernels.forward(rows, inputs.dense, inputs.bits)
    if inputs.dense:
        spikes = layout.sequence(spikes, y).to(y.dtype)
    else:
        spikes = y.new_full((), float("nan")).expand(inputs.steps, *y.shape[1:])
    last = layout.whole(layout.state(last, y))
    return LIFOutputs(layout.whole(spikes), moments, last, statistics, bits, count)


class Gradients(NamedTuple):
    """The gradients of y, residual and u (empty without them), and of bias, gain, decay, threshold.

    The last four are the rows of `sums` `[4, C]`.
    """

    y: Tensor
    residual: Tensor
    u: Tensor
    sums: Tensor


def backward(
    inputs: LIFInputs,
    statistics: Tensor,
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
) -> Gradients:
    """The gradients of the inputs; those of decay and threshold only with `constants`."""
    inputs.check()
    _check_gradients(inputs, statistics, g_spikes, g_moments, g_last)
    kernels, y = KERNELS[inputs.backend], inputs.y
    rows = LIFRows.of(inputs, kernels.READS_HALF)
    if inputs.eps is not None:
        rows = rows._replace(statistics=statistics, eps=inputs.eps)
    g_x, g_start, sums = kernels.backward(
        rows,
        None if g_spikes is None else layout.rows(g_spikes, rows.y.dtype),
        None if g_moments is None else g_moments.contiguous(),
        None if g_last is None else layout.state_rows(g_last),
        constants,
    )
    has_residual = inputs.residual is not None or inputs.residual_bits is not None
    g_residual = layout.sequence(g_x, y) if has_residual else y.new_empty(0)
    if inputs.eps is not None:
        totals = sums[:2].double()
        if ranks(inputs.sync) > 1:
            totals = totals.clone()  # a rank's own sums are what its weight and bias get
            dist.all_reduce(totals)
        in_place = not has_residual and g_x.dtype == rows.y.dtype
        g_y = g_x if in_place else torch.empty_like(rows.y)
        kernels.norm_gradient(rows, g_x, totals, g_y)
    elif inputs.gain is not None:
        g_y = g_x * inputs.gain
    else:  # an operation returns no tensor twice
        g_y = g_x.clone() if has_residual else g_x
    g_u = g_start if inputs.u is None else layout.state(g_start, y)
    return Gradients(layout.sequence(g_y, y).to(y.dtype), g_residual, g_u, sums)


def _check_gradients(
    inputs: LIFInputs,
    statistics: Tensor,
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
) -> None:
    """Raise `UserError` for tensors of backward that do not fit y."""
    y = inputs.y
    C = y.shape[2]
    for name, tensor, shape in (
        ("gradient of the spikes", g_spikes, (inputs.steps, *y.shape[1:])),
        ("gradient of the moments", g_moments, (4, C)),
        ("gradient of the last membrane", g_last, y.shape[1:]),
        ("statistics", statistics, (0,) if inputs.eps is None else (3, C)),
    ):
        if tensor is not None and tuple(tensor.shape) != tuple(shape):
            raise UserError(f"{name}: {list(tensor.shape)} is not {list(shape)}")
    if statistics.dtype != torch.float64:
        raise UserError(f"statistics: {statistics.dtype} is not float64")


# Autograd ----------------------------------------------------------------------------------------


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    """Save for backward: the inputs, of a residual that is spikes only the bits, the statistics."""
    given, out = LIFInputs(*inputs), LIFOutputs(*output)
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(out.statistics, out.bits, out.spike_count)
    residual, bits = given.residual, given.residual_bits
    if residual is not None and bits is None and given.look:
        bits = pack_if_spikes(given.backend, residual)
    ctx.has_residual = residual is not None
    if bits is not None:
        residual = None
    ctx.save_for_backward(
        given.y, given.gain, given.bias, residual, bits, given.u, given.decay, given.threshold,
        out.statistics,
    )  # fmt: skip
    ctx.others = (given.backend, given.steps, given.eps, given.sync, given.neuron)


@differentiable_once
def _gradient(ctx: Any, g_spikes: Any, g_moments: Any, g_last: Any, *_: Any) -> tuple[Any, ...]:
    y, gain, bias, residual, bits, u, decay, threshold, statistics = ctx.saved_tensors
    backend, steps, eps, sync, neuron = ctx.others
    inputs = LIFInputs(
        backend, y, gain, bias, residual, bits, u, decay, threshold, steps, eps, sync, neuron,
        False, False, False,
    )  # fmt: skip
    if not NeuronNumbers(*neuron).moments:
        g_moments = None
    needed = LIFInputs(*ctx.needs_input_grad)
    arriving = (statistics, g_spikes, g_moments, g_last, bool(needed.decay or needed.threshold))
    if is_traced(y, g_spikes, g_moments, g_last):
        g = Gradients(*torch.ops.rmploss.lif_backward(*inputs.schema, *arriving))
    else:
        g = backward(inputs, *arriving)
    g_bias, g_gain, g_decay, g_threshold = g.sums.unbind(0)
    nothing = LIFInputs(*(None for _ in inputs))  # pyright: ignore[reportArgumentType]
    return tuple(
        nothing._replace(
            y=g.y,
            gain=None if gain is None else g_gain,
            bias=None if bias is None else g_bias,
            residual=g.residual if ctx.has_residual else None,
            u=None if u is None else g.u,
            decay=g_decay,
            threshold=g_threshold,
        )
    )


class _LIF(torch.autograd.Function):
    """The operation in eager mode."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        output = tuple(forward(*inputs))
        if any(ctx.needs_input_grad):
            _keep(ctx, inputs, output)
        return output

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
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
    moments = decay.new_empty((4, C) if NeuronNumbers.read(given.neuron).moments else 0)
    if given.dense:
        spikes = layout.empty(y, given.steps)
    else:
        spikes = y.new_empty(()).expand(given.steps, *y.shape[1:])
    words = y.new_empty(0, dtype=torch.int64)
    if given.bits:
        rows = given.steps * y.shape[1:].numel() // C
        words = y.new_empty(rows, layout.words(C), dtype=torch.int64)
    count = y.new_empty((), dtype=torch.int64)
    return spikes, moments, layout.empty_state(y, decay), statistics, words, count


@register_fake("rmploss::lif_backward", lib=LIBRARY)
def _(*arguments: Any) -> tuple[Tensor, ...]:
    given: Sequence[Any] = arguments[: len(LIFInputs._fields)]
    inputs = LIFInputs(*given)
    y, decay = inputs.y, inputs.decay
    has_residual = inputs.residual is not None or inputs.residual_bits is not None
    g_residual = layout.empty(y, inputs.steps, decay.dtype) if has_residual else y.new_empty(0)
    g_u = decay.new_empty(0) if inputs.u is None else layout.empty_state(y, decay)
    return layout.empty(y, y.shape[0]), g_residual, g_u, decay.new_empty(4, y.shape[2])
