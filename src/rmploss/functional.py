"""Neurons as functions of input and state; they keep no state themselves (Eqs. 1-4).

All quantities are dimensionless; sequences are time first, `[T, B, C, ...]`.
"""

import math
import warnings
from typing import Literal

import torch
from torch import Tensor

from rmploss import ops
from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.ops.lif import reference, tdbn
from rmploss.ops.lif.inputs import DEFAULT_MOMENTS
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import Surrogate, as_surrogate

ADVICE = {
    "channels": "LIF(64); a leak: LIF(decay=0.9); SpikingJelly's tau: LIF.from_tau(2.0)",
    "tau": "decay=0.25, the paper's tau; SpikingJelly's is LIF.from_tau(4/3)",
    "beta": "decay=0.9, snnTorch's beta",
    "threshold": "v_threshold=...",
    "v_th": "v_threshold=...",
    "surrogate_function": 'surrogate="arctan", or a Surrogate',
    "spike_grad": 'surrogate="arctan", or a Surrogate',
    "reset_mechanism": "v_reset=None is the soft reset",
    "step_mode": "nothing: x is [T, B, C, ...]; single steps: carry_state=True and step(x)",
    "": "only channels and x have a place, the others names: decay=..., v_threshold=...",
}
"""What to type instead of arguments that other packages have, or that are often wrong."""


@checked(**ADVICE)
def lif(
    x: Tensor,
    *,
    decay: float = 0.25,
    v_threshold: float = 0.5,
    v_reset: float | None = 0.0,
    reset_by: float | None = None,
    detach_reset: bool = False,
    surrogate: str | Surrogate = "clipped_tanh",
    moments: MomentSpec | None = None,
    channels: int | None = None,
) -> tuple[Tensor, Tensor]:
    """LIF neurons from rest (Eqs. 1-3): spikes `[T, B, C, ...]` and membrane moments `[4, C]`.

    x: input current `[T, B, C, ...]`.
    decay: tau of Eq. 1, in [0, 1].
    v_threshold: V_th, positive.
    v_reset: the membrane after a spike, below v_threshold; None: soft reset.
    reset_by: what the soft reset subtracts; None: v_threshold.
    detach_reset: no gradient through the reset.
    surrogate: a name in `SURROGATES`, or a `Surrogate`.
    moments: which moments to take; None: those of the paper.
    channels: C, which an x of four axes `[T, B, C, L]` needs: images `[B, C, H, W]` look alike.

    The moments are the sums over time, batch and space of u_pre, u_pre^2, |o - u_pre|^p and o. Both
    outputs are differentiable. Raises `UserError`.
    """
    check(decay=decay, v_threshold=v_threshold, v_reset=v_reset, reset_by=reset_by)
    check_axes(x, channels, "channels={}")
    spikes, sums, _ = ops.lif(
        x,
        decay=decay,
        v_threshold=v_threshold,
        v_reset=v_reset,
        reset_by=reset_by,
        detach_reset=detach_reset,
        surrogate=as_surrogate(surrogate),
        moments=moments or DEFAULT_MOMENTS,
    )
    assert sums is not None  # a MomentSpec was given
    return spikes, sums


@checked(**ADVICE)
def lif_step(
    x: Tensor,
    u: Tensor,
    *,
    decay: float = 0.25,
    v_threshold: float = 0.5,
    v_reset: float | None = 0.0,
    reset_by: float | None = None,
    detach_reset: bool = False,
    surrogate: str | Surrogate = "clipped_tanh",
) -> tuple[Tensor, Tensor]:
    """One time step of LIF neurons: spikes and the membrane after the reset, both `[B, C, ...]`.

    x: input current `[B, C, ...]`.
    u: membrane after the previous step, of the same shape; zeros before the first.

    The other arguments are those of `lif`. The membrane is float32 at least; spikes have the type
    of x. Raises `UserError`.
    """
    check(decay=decay, v_threshold=v_threshold, v_reset=v_reset, reset_by=reset_by)
    ops.check_current(x)
    ops.check_current(u, "u")
    if x.ndim < 2 or u.shape != x.shape:
        raise UserError(
            f"x has shape {list(x.shape)}, the membrane u {list(u.shape)}; both need [B, C, ...]: "
            "before the first step u = torch.zeros_like(x)"
        )
    o, _, u = reference.lif_step(
        ops.at_least_single(x),
        ops.at_least_single(u),
        decay=decay,
        v_threshold=v_threshold,
        v_reset=v_reset,
        reset_by=reset_by,
        detach_reset=detach_reset,
        surrogate=as_surrogate(surrogate),
    )
    return o.to(x.dtype), u


@checked(**ADVICE)
def membrane(
    x: Tensor,
    *,
    decay: float | Tensor = 0.25,
    v_threshold: float | Tensor = 0.5,
    v_reset: float | None = 0.0,
    reset_by: float | None = None,
    channels: int | None = None,
) -> Tensor:
    """u_pre of every time step `[T, B, C, ...]`, without gradient.

    x: input current `[T, B, C, ...]`.
    decay, v_threshold: a number, or one per channel `[C]`.

    The other arguments are those of `lif`. Raises `UserError`.
    """
    # What is learnt may be anything; the numbers beside it are checked.
    check(
        decay=0.0 if isinstance(decay, Tensor) else decay,
        v_threshold=math.inf if isinstance(v_threshold, Tensor) else v_threshold,
        v_reset=v_reset,
        reset_by=reset_by,
        learnt=isinstance(v_threshold, Tensor),
    )
    check_axes(x, channels, "channels={}")
    for name, value in (("decay", decay), ("v_threshold", v_threshold)):
        if isinstance(value, Tensor) and tuple(value.shape) not in ((), (1,), (x.shape[2],)):
            raise UserError(f"{name} has shape {list(value.shape)}, not [C] = [{x.shape[2]}]")
    surrogate = as_surrogate("clipped_tanh")
    potentials = []
    with torch.no_grad():
        x = ops.at_least_single(x)
        decay, v_threshold = (tdbn.per_channel(value, x) for value in (decay, v_threshold))
        u = torch.full_like(x[0], v_reset or 0.0)
        for x_t in x.unbind(0):
            _, u_pre, u = reference.lif_step(
                x_t,
                u,
                decay=decay,
                v_threshold=v_threshold,
                v_reset=v_reset,
                reset_by=reset_by,
                detach_reset=True,
                surrogate=surrogate,
            )
            potentials.append(u_pre)
    return torch.stack(potentials)


@checked()
def accumulate(
    x: Tensor, u: Tensor | None = None, *, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """The output membrane u(T) of Eq. 4, `[B, K]`.

    x: inputs `[T, B, K]`.
    u: the membrane before the first step `[B, K]`, for "sum" only; None: zeros.
    reduction: "sum", as in Eq. 4, or "mean", which divides by T as the authors' code does.
    """
    check_readout(reduction, u is not None)
    ops.check_current(x)
    if x.ndim < 2 or not x.shape[0]:
        raise UserError(f"x has shape {list(x.shape)}; a read-out needs [T, B, ...], time first")
    if u is not None and u.shape != x.shape[1:]:
        raise UserError(
            f"x has shape {list(x.shape)}, the membrane u {list(u.shape)}, which must be that of "
            "one step: call reset_state() before a batch of another shape"
        )
    x = ops.at_least_single(x)
    if reduction == "mean":
        return x.mean(0)
    return x.sum(0) if u is None else u + x.sum(0)


def check(
    *,
    decay: float,
    v_threshold: float,
    v_reset: float | None,
    reset_by: float | None = None,
    learnt: bool = False,
) -> None:
    """Raise `UserError` with every bad constant of a neuron; the arguments are those of `lif`.

    learnt: the threshold is learnt, and not checked.
    """
    problems = problems_in(
        decay=decay, v_threshold=v_threshold, v_reset=v_reset, reset_by=reset_by, learnt=learnt
    )
    if problems:
        raise UserError("bad neuron", problems)


def problems_in(
    *,
    decay: float,
    v_threshold: float,
    v_reset: float | None,
    reset_by: float | None = None,
    learnt: bool = False,
) -> list[Problem]:
    """Every bad constant of a neuron; the arguments are those of `check`."""
    numbers = {"decay": decay, "v_threshold": v_threshold, "v_reset": v_reset or 0.0}
    numbers["reset_by"] = 1.0 if reset_by is None else reset_by
    problems = [
        Problem(f"{name} = {value!r}", "must be a number")
        for name, value in numbers.items()
        if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    if problems:
        return problems
    if not 0 <= decay <= 1:
        problems.append(
            Problem(f"decay = {decay!r}", "must lie in [0, 1]", "the paper uses 0.25 (Eq. 1)")
        )
    if not learnt and not (v_threshold > 0 and math.isfinite(v_threshold)):
        problems.append(
            Problem(f"v_threshold = {v_threshold!r}", "must be positive", "the paper uses 0.5")
        )
    elif v_reset is not None and not -math.inf < v_reset < v_threshold:
        problems.append(
            Problem(
                f"v_reset = {v_reset!r}",
                f"must lie below v_threshold = {v_threshold}",
                "the paper uses 0.0; None is the soft reset",
            )
        )
    if reset_by is not None and v_reset is not None:
        what, fix = "belongs to the soft reset", "v_reset=None"
        problems.append(Problem(f"reset_by = {reset_by!r}", what, fix))
    elif not 0 < numbers["reset_by"] < math.inf:
        problems.append(Problem(f"reset_by = {reset_by!r}", "must be positive"))
    return problems


def check_axes(x: Tensor, channels: int | None, example: str = "LIF({})") -> None:
    """Raise `UserError` for an x that is no sequence `[T, B, C, ...]` of these channels.

    Without known channels four axes are refused: `[B, C, H, W]`, images without time, cannot be
    distinguished from `[T, B, C, L]`.

    example: how the caller says its channels.
    """
    ops.check_current(x)
    shape = list(x.shape)
    if x.ndim < 3 or not x.numel():
        raise UserError(f"x has shape {shape}; a neuron needs [T, B, C, ...], time first, none 0")
    if channels == x.shape[2] or (channels is None and x.ndim != 4):
        return
    advice = (
        "images [B, C, H, W] are one time step as x.unsqueeze(0), and T steps in one batch as "
        "x.unflatten(0, (T, B))"
    )
    if channels is None:
        raise UserError(
            f"x has shape {shape}; a neuron needs [T, B, C, ...], time first: {advice}; for "
            f"sequences [T, B, C, L] say the number of channels: {example.format(shape[2])}"
        )
    raise UserError(
        f"x has shape {shape}; these neurons need [T, B, {channels}, ...], time first"
        + (f": {advice}" if x.ndim == 4 else "")
    )


def check_tau(tau: float) -> None:
    """Raise `UserError` for a time constant below one time step."""
    if not (isinstance(tau, int | float) and 1 <= tau < math.inf):
        what, fix = "must be >= 1, a number", "4/3 is the paper's decay; without a leak: IF()"
        raise UserError("bad neuron", [Problem(f"tau = {tau!r}", what, fix)])


def check_carry(carry_state: bool) -> None:
    """Raise `UserError` if a neuron that does not carry its membrane should run a single step."""
    if not carry_state:
        raise UserError(
            "step() needs a neuron that carries its membrane: make it with carry_state=True, "
            "and call reset_state() before each new sequence"
        )


def carried(u: Tensor | None, had_gradient: bool) -> Tensor | None:
    """The membrane of the call before, with a warning where its gradient is missed.

    had_gradient: whether u had one when it was carried, without it, to this call.
    """
    if had_gradient and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        warnings.warn(
            "carry_state=True carries the membrane without its gradient: backward sees this call "
            "alone. For the gradient through time give all steps in one call, x [T, B, ...], or "
            "carry u yourself: functional.lif_step(x, u), functional.accumulate(x, u)",
            stacklevel=3,
        )
    return u


def check_recomputing(carried: bool) -> None:
    """Raise `UserError` if a checkpoint would run a neuron with carried state twice."""
    if carried:
        raise UserError(
            "a neuron with carry_state=True cannot run inside rmploss.checkpoint: the second run "
            "would begin with the last membrane of the first"
        )


def check_readout(reduction: str, carry: bool) -> None:
    """Raise `UserError` for an unknown reduction, or a mean with carried state."""
    if reduction not in ("sum", "mean"):
        raise UserError(f'reduction = {reduction!r} must be "sum" (Eq. 4) or "mean"')
    if carry and reduction == "mean":
        raise UserError('a mean over time cannot be carried from call to call: use "sum"')
