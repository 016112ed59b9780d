"""TSSL-BP (Zhang and Li, NeurIPS 2020): neurons that give on post-synaptic currents, not spikes.

    du(t) = x(t) - v(t-1) / tau_m;   u(t) = v(t-1) + du(t)      v: the membrane after the reset
    s(t)  = 1 if u(t) > V_th else 0;   v(t) = u(t) (1 - s(t))
    a(t)  = a(t-1) + (s(t) - a(t-1)) / tau_s                    what leaves the layer

Backward is the method's own, of the whole layer at once, from g(t) = dL/da(t). With

    E(t) = g(t) / tau_s + (1 - 1/tau_s) E(t+1)                  a spike's effect on all later a
    slope(u) = f / ((1 + f)^2 0.2),   f = exp(clip((V_th - u) / 0.2, -8, 8))

there are two generations of it, that of the paper's numbers and that of the code since.

Generation A. R(j, k) = u(j) / tau_m (1 - 1/tau_m)^(k-j-1) where j is a spike and k the next spike
of the same neuron, 0 elsewhere. E is taken of g + R g in place of g: A g, with A = P + P R, where
E = P g.

    dL/dx(t) = s(t) clip(1/du(t), -10, 10) E(t)    where spikes are more than 0.1 of all s
               slope(u(t)) E(t)                    else, for all neurons of the layer

Generation B. psi(t) = s(t) clip(1/du(t), 0, 8); backward from t = T, with c = 0 behind it:

    d(t) = psi(t) E(t) + c(t+1) (u(t) / tau_m psi(t) + (1 - 1/tau_m) (1 - s(t)))
    c(t) = s(t) d(t) + (1 - s(t)) (1 - 1/tau_m) c(t+1)
    dL/dx(t) = d(t),   but slope(u(t)) E(t) where a(t) < 1 / (4 tau_s)

Who fires has risen from below V_th, so 1/du is positive there: the lower bounds are never met.
"""

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rmploss.errors import Problem, UserError
from rmploss.ops import at_least_single, check_current
from rmploss.ops.moments import MomentSpec, membrane_moments
from rmploss.stats import open_stats

TAU_S = {"A": 2.0, "B": 3.0}
"""The synaptic time constant of each generation."""
STEEPEST = {"A": 10.0, "B": 8.0}
"""The largest 1/du."""
LIVELY = 0.1
"""Generation A: a layer with fewer spikes per output takes the slope of the sigmoid."""
WIDTH = 0.2
"""Of the sigmoid, in units of the membrane."""


@dataclass(frozen=True)
class Constants:
    """Of one layer, dimensionless; tau_m, tau_s: in time steps."""

    generation: Literal["A", "B"]
    tau_m: float
    tau_s: float
    v_threshold: float


@dataclass(frozen=True)
class Trace:
    """What a forward went through, all `[T, ...]`: u before the reset, du, s (boolean), a."""

    u: Tensor
    du: Tensor
    s: Tensor
    a: Tensor


class TSSL(nn.Module):
    """TSSL-BP neurons: `[T, B, C, ...]` input current to post-synaptic currents of the same shape.

    generation: "A", the code of the paper's numbers, or "B", the code since December 2020; tau_m,
    tau_s: time constants in time steps, at least 1; tau_s None: 2 for A and 3 for B. A layer
    starts at rest; channels: not needed. Half precision is computed in float32.

    The spikes that generation A counts are those of this process's part of the batch.
    """

    unregularized: ClassVar[str | None] = (
        "its gradient is its own: no derivative with respect to the membrane"
    )
    carry_state: ClassVar[bool] = False
    backend: ClassVar[str] = "auto"

    def __init__(
        self,
        channels: int | None = None,
        *,
        generation: Literal["A", "B"] = "A",
        tau_m: float = 5.0,
        tau_s: float | None = None,
        v_threshold: float = 1.0,
    ) -> None:
        super().__init__()
        if generation not in TAU_S:
            what, fix = "is unknown", '"A", of the paper, or "B", of the code since'
            raise UserError("bad neuron", [Problem(f"generation = {generation!r}", what, fix)])
        tau_s = TAU_S[generation] if tau_s is None else tau_s
        problems = [
            Problem(f"{name} = {tau!r}", "must be at least 1, in time steps", f"the paper: {usual}")
            for name, tau, usual in (("tau_m", tau_m, 5), ("tau_s", tau_s, 2))
            if not 1 <= tau < math.inf
        ]
        if not 0 < v_threshold < math.inf:
            where = f"v_threshold = {v_threshold!r}"
            problems.append(Problem(where, "must be positive", "the paper: 1"))
        if problems:
            raise UserError("bad neuron", problems)
        self.constants = Constants(generation, tau_m, tau_s, v_threshold)
        self.v_threshold = v_threshold
        self.tau_s = tau_s
        self.layer_name = ""

    def forward(self, x: Tensor) -> Tensor:
        """The post-synaptic currents a `[T, B, C, ...]` of the input current x; in its type."""
        check_current(x)
        if x.ndim < 3 or not x.numel():
            raise UserError(
                f"x has shape {list(x.shape)}; a neuron needs [T, B, C, ...], time first, none 0"
            )
        wide = at_least_single(x)
        a, u = _Layer.apply(wide, self.constants)
        stats = open_stats()
        if stats is not None:
            moments = _moments(wide.detach(), u, self.v_threshold, stats.spec)
            stats.record(self.layer_name, moments, x.numel() // x.shape[2])
        return a.to(x.dtype)

    def membrane(self, x: Tensor) -> Tensor:
        """u `[T, B, C, ...]` before the reset for the input current x, without gradient."""
        with torch.no_grad():
            return simulate(at_least_single(x), self.constants).u

    def extra_repr(self) -> str:
        """The constants."""
        c = self.constants
        return (
            f"generation={c.generation!r}, tau_m={c.tau_m}, tau_s={c.tau_s}, "
            f"v_threshold={c.v_threshold}"
        )


def simulate(x: Tensor, constants: Constants) -> Trace:
    """The forward of all steps for the input current x `[T, ...]`."""
    v = torch.zeros_like(x[0])
    us, dus = [], []
    for x_t in x.unbind(0):
        du = x_t - v / constants.tau_m
        u = v + du
        v = torch.where(u > constants.v_threshold, 0.0, u)
        us.append(u)
        dus.append(du)
    u = torch.stack(us)
    s = u > constants.v_threshold
    return Trace(u, torch.stack(dus), s, post_synaptic(s.to(x.dtype), constants.tau_s))


def post_synaptic(s: Tensor, tau_s: float) -> Tensor:
    """a(t) = a(t-1) + (s(t) - a(t-1)) / tau_s of a train s `[T, ...]`, real numbers or spikes."""
    a, every = torch.zeros_like(s[0]), []
    for s_t in s.unbind(0):
        a = a + (s_t - a) / tau_s
        every.append(a)
    return torch.stack(every)


def effect(g: Tensor, tau_s: float) -> Tensor:
    """E `[T, ...]` of g: what `post_synaptic` makes of time reversed."""
    return post_synaptic(g.flip(0), tau_s).flip(0)


def next_spikes(g: Tensor, trace: Trace, tau_m: float) -> Tensor:
    """R g `[T, ...]`: every spike's share of g at the next spike of its neuron."""
    c, every = torch.zeros_like(g[0]), []
    for g_t, u, s in zip(g.flip(0), trace.u.flip(0), trace.s.flip(0), strict=True):
        every.append(torch.where(s, u / tau_m * c, 0.0))
        c = torch.where(s, g_t, (1 - 1 / tau_m) * c)
    return torch.stack(every).flip(0)


def gradient_a(g: Tensor, trace: Trace, constants: Constants) -> Tensor:
    """dL/dx `[T, ...]` of generation A, from g = dL/da."""
    E = effect(g + next_spikes(g, trace, constants.tau_m), constants.tau_s)
    # Compared on the device: nothing waits for the count.
    lively = trace.s.count_nonzero() > LIVELY * trace.s.numel()
    return torch.where(lively, _steep(trace, constants), _slope(trace.u, constants)) * E


def gradient_b(g: Tensor, trace: Trace, constants: Constants) -> Tensor:
    """dL/dx `[T, ...]` of generation B, from g = dL/da."""
    E = effect(g, constants.tau_s)
    psi, keep = _steep(trace, constants), 1 - 1 / constants.tau_m
    c, every = torch.zeros_like(g[0]), []
    for t in reversed(range(len(g))):
        s, psi_t = trace.s[t], psi[t]
        later = torch.where(s, trace.u[t] / constants.tau_m * psi_t, keep) * c
        d = psi_t * E[t] + later
        c = torch.where(s, d, keep * c)
        every.append(d)
    d = torch.stack(every[::-1])
    # The replacement comes last: the carry has not seen it.
    silent = trace.a < 1 / (4 * constants.tau_s)
    return torch.where(silent, _slope(trace.u, constants) * E, d)


GRADIENTS = {"A": gradient_a, "B": gradient_b}


class _Layer(torch.autograd.Function):
    """Input current to a and, without gradient, u. Keeps the current alone and runs it again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx.save_for_backward(x)
        ctx.constants = constants
        trace = simulate(x, constants)
        ctx.mark_non_differentiable(trace.u)
        return trace.a, trace.u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (x,) = ctx.saved_tensors
        trace = simulate(x, ctx.constants)
        return GRADIENTS[ctx.constants.generation](g, trace, ctx.constants), None


def _steep(trace: Trace, constants: Constants) -> Tensor:
    """s clip(1/du): 0 where du = 0, as nobody fires there."""
    steepest = STEEPEST[constants.generation]
    return torch.where(trace.s, trace.du.reciprocal().clamp(max=steepest), 0.0)


def _slope(u: Tensor, constants: Constants) -> Tensor:
    f = ((constants.v_threshold - u) / WIDTH).clamp(-8, 8).exp()
    return f / ((1 + f).square() * WIDTH)


def _moments(x: Tensor, u: Tensor, v_threshold: float, spec: MomentSpec) -> Tensor:
    """The moments `[4, C]` of all steps, without a graph."""
    potential = x if spec.potential == "input" else u
    s, target = ((p > v_threshold).to(u.dtype) for p in (u, potential))
    steps = zip(potential, s, target, strict=True)
    return torch.stack([membrane_moments(*step, spec) for step in steps]).sum(0)
