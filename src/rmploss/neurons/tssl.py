"""TSSL-BP (Zhang and Li, NeurIPS 2020): their outputs are post-synaptic currents.

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

A neuron that fires has risen from below V_th, so 1/du is positive there and the lower bounds are
never met.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.layer import SpikingLayer, channel_problems
from rmploss.ops.lif.moments import MomentSpec, membrane_moments
from rmploss.ops.tracing import differentiable_once

TAU_S = {"A": 2.0, "B": 3.0}
"""The synaptic time constant of each generation."""
STEEPEST = {"A": 10.0, "B": 8.0}
"""The largest 1/du."""
LIVELY = 0.1
"""Generation A: a layer with fewer spikes per output takes the slope of the sigmoid."""
WIDTH = 0.2
"""Of the sigmoid, in units of the membrane."""
PART = 2**17
"""How many values of a layer are computed at a time: 512 KiB in float32, and about ten such."""


@dataclass(frozen=True)
class Constants:
    """Of one layer, dimensionless; tau_m, tau_s: in time steps."""

    generation: Literal["A", "B"]
    tau_m: float
    tau_s: float
    v_threshold: float


Steps = list[Tensor]
"""A tensor of one shape for every time step."""


@dataclass(frozen=True)
class Trace:
    """All steps of a forward: u before the reset, du, s (0 or 1), a."""

    u: Steps
    du: Steps
    s: Steps
    a: Steps


class TSSL(SpikingLayer):
    """TSSL-BP neurons: `[T, B, C, ...]` input current to post-synaptic currents of the same shape.

    A layer starts at rest. Half precision is computed in float32. The spikes that generation A
    counts are those of this process's part of the batch.

    channels: of `LIF`.
    generation: "A", the code of the paper's numbers, or "B", the code since December 2020.
    tau_m: the time constant of the membrane, in time steps, at least 1.
    tau_s: that of the synapse; None: 2 for A and 3 for B.
    v_threshold: at which a neuron fires, dimensionless.

    Raises `UserError` for values out of range.
    """

    unregularized: ClassVar[str | None] = (
        "its backward pass has no derivative with respect to the membrane"
    )

    @checked(**{**ADVICE, "generation": '"A", of the paper, or "B", of the code since'})
    def __init__(
        self,
        channels: int | None = None,
        *,
        generation: Literal["A", "B"] = "A",
        tau_m: float = 5.0,
        tau_s: float | None = None,
        v_threshold: float = 1.0,
    ) -> None:
        problems = channel_problems(channels)
        tau_s = TAU_S[generation] if tau_s is None else tau_s
        problems += [
            Problem(f"{name} = {tau!r}", "must be at least 1, in time steps", f"the paper: {usual}")
            for name, tau, usual in (("tau_m", tau_m, 5), ("tau_s", tau_s, 2))
            if not 1 <= tau < math.inf
        ]
        if not 0 < v_threshold < math.inf:
            where = f"v_threshold = {v_threshold!r}"
            problems.append(Problem(where, "must be positive", "the paper: 1"))
        if problems:
            raise UserError("bad TSSL", problems)
        super().__init__(channels, v_threshold)
        self.constants = Constants(generation, tau_m, tau_s, v_threshold)
        self.tau_s = tau_s

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The post-synaptic currents a, and u before the reset, which has no gradient."""
        return _Layer.apply(x, self.constants)

    def fires(self, u: Tensor) -> Tensor:
        """1 where u > v_threshold, else 0."""
        return (u > self.v_threshold).to(u.dtype)

    def moments(self, x: Tensor, u: Tensor, spec: MomentSpec) -> Tensor:
        """The membrane moments `[4, C]`, summed step by step; per step `[T, 4, C]`."""
        potential = x if spec.potential == "input" else u
        steps = zip(potential, self.fires(u), self.fires(potential), strict=True)
        moments = torch.stack([membrane_moments(*step, spec) for step in steps])
        return moments if spec.per_step else moments.sum(0)

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
    us, dus, spikes = [], [], []
    for x_t in x.unbind(0):
        du = x_t - v / constants.tau_m
        u = v + du
        s = (u > constants.v_threshold).to(x.dtype)
        v = u * (1 - s)
        us.append(u)
        dus.append(du)
        spikes.append(s)
    return Trace(us, dus, spikes, filtered(spikes, constants.tau_s))


def post_synaptic(s: Tensor, tau_s: float) -> Tensor:
    """a(t) = a(t-1) + (s(t) - a(t-1)) / tau_s of a train s `[T, ...]`, real numbers or spikes."""
    return torch.stack(filtered([*s], tau_s))


def filtered(s: Steps, tau_s: float) -> Steps:
    """The same, step by step."""
    a, every = torch.zeros_like(s[0]), []
    for s_t in s:
        a = torch.lerp(a, s_t, 1 / tau_s)
        every.append(a)
    return every


def effect(g: Steps, tau_s: float) -> Steps:
    """E of g: what the filter makes of time reversed."""
    return filtered(g[::-1], tau_s)[::-1]


def next_spikes(g: Steps, trace: Trace, tau_m: float) -> Steps:
    """R g: every spike's share of g at the next spike of its neuron."""
    c, every = torch.zeros_like(g[0]), []
    for g_t, u, s in zip(g[::-1], trace.u[::-1], trace.s[::-1], strict=True):
        every.append(s * u * c / tau_m)
        c = torch.lerp((1 - 1 / tau_m) * c, g_t, s)  # s is 0 or 1: one of the two
    return every[::-1]


def gradient_a(g: Steps, trace: Trace, lively: Tensor, constants: Constants) -> Steps:
    """dL/dx of generation A, from g = dL/da; lively: whether the whole layer is."""
    moved = next_spikes(g, trace, constants.tau_m)
    E = effect([g_t + moved_t for g_t, moved_t in zip(g, moved, strict=True)], constants.tau_s)
    factors = (
        torch.where(lively, _steep(s, du, constants), _slope(u, constants))
        for s, du, u in zip(trace.s, trace.du, trace.u, strict=True)
    )
    return [factor * E_t for factor, E_t in zip(factors, E, strict=True)]


def gradient_b(g: Steps, trace: Trace, lively: Tensor, constants: Constants) -> Steps:
    """dL/dx of generation B, from g = dL/da; lively: ignored."""
    E, keep = effect(g, constants.tau_s), 1 - 1 / constants.tau_m
    c, every = torch.zeros_like(g[0]), []
    for t in reversed(range(len(g))):
        s, u, psi = trace.s[t], trace.u[t], _steep(trace.s[t], trace.du[t], constants)
        d = psi * E[t] + c * (u / constants.tau_m * psi + keep * (1 - s))
        c = torch.lerp(keep * c, d, s)
        # The replacement comes last: the carry has not seen it.
        silent = trace.a[t] < 1 / (4 * constants.tau_s)
        every.append(torch.where(silent, _slope(u, constants) * E[t], d))
    return every[::-1]


GRADIENTS = {"A": gradient_a, "B": gradient_b}


class _Layer(torch.autograd.Function):
    """Input current to a and, without gradient, u. Keeps the current alone and runs it again.

    Both directions go through the batch in parts that stay in the processor's cache.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, constants: Constants) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        a, u = torch.empty_like(x), torch.empty_like(x)
        spikes = torch.zeros((), dtype=torch.int64, device=x.device)
        for x_part, a_part, u_part in parts(x, a, u):
            trace = simulate(x_part, constants)
            torch.stack(trace.a, out=a_part)
            torch.stack(trace.u, out=u_part)
            spikes += sum(s.count_nonzero() for s in trace.s)
        # Compared on the device: nothing waits for the count.
        ctx.save_for_backward(x, spikes > LIVELY * x.numel())
        ctx.constants = constants
        ctx.mark_non_differentiable(u)
        return a, u

    @staticmethod
    @differentiable_once
    def backward(ctx: Any, g: Tensor, _: Tensor) -> tuple[Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, lively = ctx.saved_tensors
        gradient = GRADIENTS[ctx.constants.generation]
        g_x = torch.empty_like(x)
        for x_part, g_part, out in parts(x, g, g_x):
            trace = simulate(x_part, ctx.constants)
            torch.stack(gradient([*g_part], trace, lively, ctx.constants), out=out)
        return g_x, None


def parts(*sequences: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Views of `[T, B, ...]` sequences of one shape, a few samples at a time.

    On a GPU all samples at once: there a part would only be one more kernel to start.
    """
    T, B, *inner = sequences[0].shape
    few = B if sequences[0].is_cuda else max(1, PART // max(T * math.prod(inner), 1))
    return zip(*(sequence.split(few, 1) for sequence in sequences), strict=True)


def _steep(s: Tensor, du: Tensor, constants: Constants) -> Tensor:
    """s clip(1/du): 0 where du = 0, as no neuron fires there."""
    steepest = STEEPEST[constants.generation]
    return du.reciprocal().clamp(-steepest, steepest) * s


def _slope(u: Tensor, constants: Constants) -> Tensor:
    f = ((constants.v_threshold - u) / WIDTH).clamp(-8, 8).exp()
    e = 1 + f
    return f / (e * e * WIDTH)
