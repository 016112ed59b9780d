"""Membrane moments: the sufficient statistics of every regularizer of this family (Eqs. 8-10).

    moments [4, C] = sum u,  sum u^2,  sum |o - u|^p,  sum o        over time, batch and space

or [T, 4, C], over batch and space, with `MomentSpec.per_step`.

RMP-Loss is a function of the third row, IM-Loss of the first, RecDis-SNN of the first two and a
firing-rate target of the fourth. All are dimensionless.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rmploss.arguments import checked_fields
from rmploss.errors import Problem, UserError

MEMBRANE, SQUARE, ERROR, SPIKES = range(4)
"""The rows of `moments`."""


@checked_fields
@dataclass(frozen=True, kw_only=True)
class MomentSpec:
    """Which statistics a spiking layer takes of its membrane.

    p: exponent of the quantization error, Eq. 9; any p > 0.
    potential: of which potential. "u_pre" is the membrane before the reset (Eq. 1), the only
        reading that makes Eq. 8 meaningful: after a hard reset every neuron that fired is at 0.
        "input" is the input current x, which the authors' released byte code uses, with the
        nearest spike of x as its target.
    detach_target: the spike o in |o - u|^p is a constant (Eq. 8 is piecewise constant in o). False
        lets the gradient pass through o by the surrogate, the other reading of Algorithm 1, line 8.
    differentiable: False takes the statistics without a graph, for measuring only.
    per_step: True takes those of every time step, `[T, 4, C]`; False the sums over time, `[4, C]`.
    """

    p: float = 2.0
    potential: Literal["u_pre", "input"] = "u_pre"
    detach_target: bool = True
    differentiable: bool = True
    per_step: bool = False

    def __post_init__(self) -> None:
        problems = []
        if not (isinstance(self.p, int | float) and self.p > 0 and math.isfinite(self.p)):
            problems.append(Problem(f"p = {self.p!r}", "must be positive (Eq. 9); the paper: 2"))
        if self.potential not in ("u_pre", "input"):
            problems.append(Problem(f"potential = {self.potential!r}", 'is "u_pre" or "input"'))
        if problems:
            raise UserError("bad membrane statistics", problems)


def distance(o: Tensor, u: Tensor, p: float) -> Tensor:
    """q(u) = |Dis(o, u)|^p with Dis(o, u) = o - u (Eqs. 8-9), element by element.

    o, u: any one shape. The gradient at o = u is 0, also for p < 1, where it has no limit.
    """
    d = o - u
    if p == 2:
        return d.square()
    if p == 1:
        return d.abs()
    at_zero = d == 0
    return torch.where(at_zero, 0.0, torch.where(at_zero, 1.0, d.abs()).pow(p))


def membrane_moments(u: Tensor, o: Tensor, target: Tensor, spec: MomentSpec) -> Tensor:
    """The moments `[4, C]` of one time step.

    u: potential `[B, C, ...]`; o: spikes; target: the spike that u is compared with; all of one
    shape.
    """
    if spec.detach_target:
        target = target.detach()
    if not spec.differentiable:
        u, o, target = u.detach(), o.detach(), target.detach()
    over = [dim for dim in range(u.ndim) if dim != 1]
    rows = (u, u.square(), distance(target, u, spec.p), o)
    return torch.stack([row.sum(over) for row in rows])
