"""The LIF operation, as functions: `lif`, `norm_lif`, and `lif_layer`, which both of them call."""

from typing import Any, Unpack

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.ops import backends, layout
from rmploss.ops.collectives import ranks
from rmploss.ops.lif import reference
from rmploss.ops.lif.autograd import run
from rmploss.ops.lif.inputs import LIFInputs, LIFOutputs, NeuronNumbers, NeuronOptions
from rmploss.ops.lif.passes import KERNELS, forward
from rmploss.ops.lif.tdbn import Running
from rmploss.ops.spikes.value import Spikes, dense_of
from rmploss.ops.tracing import is_traced

FIELDS = len(LIFOutputs._fields)


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
    half-precision input; spikes have the type of x; moments are `[T, 4, C]` with
    `MomentSpec.per_step`. All is dimensionless. Raises `UserError`.

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
    scale: float = 1.0,
    running: Running | None = None,
    as_spikes: bool = False,
    dense: bool = True,
    last: bool = True,
    look: bool = True,
    backend: str = "auto",
) -> tuple[Any, Tensor | None, Tensor, Any, Any]:
    """What `norm_lif` returns; without eps what `lif` returns, and None twice.

    The arguments are those of `norm_lif`, with eps, and of `lif`, without; and

    scale: a factor of the gain.
    running: with eps: running statistics that are updated by those of y. They take the place of
        mean and variance in the result: there are None.
    dense: with as_spikes: whether the next reader takes numbers. False: where there are bits,
        numbers are made when they are first asked for.
    last, look: as in `LIFInputs`.
    """
    name, _ = backends.choose(backend, x.device, x.dtype)
    numbers = None if name == "reference" else NeuronNumbers.of(neuron)
    if isinstance(numbers, str):
        if backends.is_named(backend):
            raise UserError(f"backend {name!r} cannot run: {numbers}")
        numbers = None
    if numbers is None:
        if scale != 1 and gain is not None:
            gain = gain * scale
        out = _by_reference(x, u, gain, bias, residual, repeats, eps, sync, neuron)
        return out if running is None else _tracked(running, out)
    kernels, traced = KERNELS[name], is_traced(x, gain, bias)
    bits = as_spikes and (not kernels.WRITES_DENSE or torch.is_grad_enabled())
    # A registered operation that changes its arguments could not have a derivative.
    tracks = kernels.TRACKS and not traced and ranks(sync) == 1
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
        scale=scale,
        running=running if tracks else None,
        dense=not as_spikes or traced or (kernels.WRITES_DENSE and (dense or not bits)),
        bits=bits,
        last=last,
        look=look,
    )
    places = ()
    if traced:
        inputs.check()
        out = LIFOutputs(*torch.ops.rmploss.lif(*inputs.schema))
    elif torch.is_grad_enabled():
        all_outputs = run(inputs)
        out, places = LIFOutputs(*all_outputs[:FIELDS]), all_outputs[FIELDS:]
    else:
        out = forward(*inputs)
    moments, spec = None, neuron.get("moments")
    if spec is not None:
        moments = out.moments if spec.differentiable else out.moments.detach()
    spikes: Any = out.spikes if as_spikes else layout.as_handed_out(out.spikes)
    if as_spikes:
        found = (out.bits, out.spike_count) if inputs.bits else None
        spikes = Spikes(name, spikes, found, *places, is_dense=inputs.dense)
    mean = var = None
    if eps is not None and not (running is not None and tracks):
        mean, var, _ = out.statistics.to(inputs.decay.dtype).unbind(0)
    found = spikes, moments, out.u, mean, var
    return found if running is None or tracks else _tracked(running, found)


def _tracked(running: Running, out: tuple[Any, ...]) -> tuple[Any, ...]:
    """The outputs without mean and variance, by which the running statistics are updated."""
    running.update(*out[3:])
    return *out[:3], None, None


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
        eps=eps, sync=sync, scale=1.0, running=None, dense=True, bits=False, last=True, look=False,
    ).check()  # fmt: skip
    wide = layout.at_least_single(x)
    if eps is None:
        spikes, moments, u = reference.lif(
            wide, u, gain=gain, bias=bias, residual=shortcut, repeats=repeats, **neuron
        )
        return layout.as_handed_out(spikes.to(x.dtype)), moments, u, None, None
    assert gain is not None
    assert bias is not None
    spikes, moments, u, mean, var = reference.norm_lif(
        wide, gain.to(wide.dtype), bias.to(wide.dtype), u, eps=eps, residual=shortcut,
        repeats=repeats, sync=sync, **neuron,
    )  # fmt: skip
    return layout.as_handed_out(spikes.to(x.dtype)), moments, u, mean, var
