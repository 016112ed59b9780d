"""Neurons as functions of input and state; they keep no state themselves (Eqs. 1-4).

All quantities are dimensionless; sequences are time first, `[T, B, C, ...]`.
"""

import math
from typing import Literal

import torch
from torch import Tensor

from rmploss import ops
from rmploss.errors import Problem, UserError
from rmploss.ops.lif import reference, tdbn
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import Surrogate, as_surrogate


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

    The moments are the sums over time, batch and space of u_pre, u_pre^2, |o - u_pre|^p and o. Both
    outputs are differentiable. Raises `UserError`.
    """
    check(decay=decay, v_threshold=v_threshold, v_reset=v_reset, reset_by=reset_by)
    spikes, sums, _ = ops.lif(
        x,
        decay=decay,
        v_threshold=v_threshold,
        v_reset=v_reset,
        reset_by=reset_by,
        detach_reset=detach_reset,
        surrogate=as_surrogate(surrogate),
        moments=moments or MomentSpec(),
    )
    assert sums is not None  # a MomentSpec was given
    return spikes, sums


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


def membrane(
    x: Tensor,
    *,
    decay: float | Tensor = 0.25,
    v_threshold: float | Tensor = 0.5,
    v_reset: float | None = 0.0,
    reset_by: float | None = None,
) -> Tensor:
    """u_pre of every time step `[T, B, C, ...]`, without gradient.

    x: input current `[T, B, C, ...]`.
    decay, v_threshold: a number, or one per channel `[C]`.

    The other arguments are those of `lif`.
    """
    if not isinstance(decay, Tensor) and not isinstance(v_threshold, Tensor):
        check(decay=decay, v_threshold=v_threshold, v_reset=v_reset, reset_by=reset_by)
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


def accumulate(
    x: Tensor, u: Tensor | None = None, *, reduction: Literal["sum", "mean"] = "sum"
) -> Tensor:
    """The output membrane u(T) of Eq. 4, `[B, K]`.

    x: inputs `[T, B, K]`.
    u: the membrane before the first step `[B, K]`, for "sum" only; None: zeros.
    reduction: "sum", as in Eq. 4, or "mean", which divides by T as the authors' code does.
    """
    check_readout(reduction, u is not None)
    if x.ndim < 2 or not x.shape[0]:
        raise UserError(f"x has shape {list(x.shape)}; a read-out needs [T, B, ...], time first")
    x = ops.at_least_single(x)
    if reduction == "mean":
        return x.mean(0)
    return x.sum(0) if u is None else u + x.sum(0)


def check(
    *, decay: float, v_threshold: float, v_reset: float | None, reset_by: float | None = None
) -> None:
    """Raise `UserError` with every bad constant of a neuron; the arguments are those of `lif`."""
    numbers = {"decay": decay, "v_threshold": v_threshold, "v_reset": v_reset or 0.0}
    numbers["reset_by"] = 1.0 if reset_by is None else reset_by
    problems = [
        Problem(f"{name} = {value!r}", "must be a number")
        for name, value in numbers.items()
        if not isinstance(value, int | float)
    ]
    if problems:
        raise UserError("bad neuron", problems)
    if not 0 <= decay <= 1:
        problems.append(
            Problem(f"decay = {decay!r}", "must lie in [0, 1]", "the paper uses 0.25 (Eq. 1)")
        )
    if not (v_threshold > 0 and math.isfinite(v_threshold)):
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
    if problems:
        raise UserError("bad neuron", problems)


def check_tau(tau: float) -> None:
    """Raise `UserError` for a time constant below one time step."""
    if not tau >= 1:
        raise UserError(
            "bad neuron", [Problem(f"tau = {tau!r}", "must be >= 1", "4/3 is the paper's decay")]
        )


def check_carry(carry_state: bool) -> None:
    """Raise `UserError` if a neuron that does not carry its membrane should run a single step."""
    if not carry_state:
        raise UserError(
            "step() needs a neuron that carries its membrane: make it with carry_state=True, "
            "and call reset_state() before each new sequence"
        )


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
