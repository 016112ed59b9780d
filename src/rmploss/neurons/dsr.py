"""DSR (Meng et al., CVPR 2022): gradients of the rates that spike trains represent, in closed form.

    U(t) = decay V(t-1) + k I(t);   s(t) = 1[U(t) >= alpha V_th];   V(t) = U(t) - V_th s(t)
    o(t) = h s(t)
    IF    decay = k = 1,                          h = V_th,        w_t = 1/T
    LIF   decay = e^(-dt/tau), k = 1 - decay,     h = V_th / dt,   w_t = decay^(T-t) / sum_j decay^j

A train stands for its mean with the weights w_t, and those of I and o are tied by a clamp,

    mean_w o ~ clip(mean_w I, 0, V_th),  IF;    clip(mean_w I / tau, 0, V_th / dt),  LIF

so that backward needs no step of the forward, g(t) = dL/do(t), M = mean_w I, tau = 1 for IF:

    G         = T sum_t w_t g(t)
    dL/dI(t)  = G / (tau T) where M is inside the clamp, the same for all t
    dL/dV_th  = c sum of G where M is above it

M = 0 and M = tau V_th / dt are inside for IF and outside for LIF, as in the authors' code. Their
c is 1 for IF and dt for LIF; the derivative of the clamp would be 1 / dt.
"""

import math
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from rmploss import functional, ops
from rmploss.arguments import checked
from rmploss.entry import entry
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE, check_axes
from rmploss.neurons.accumulator import Accumulator
from rmploss.neurons.layer import SpikingLayer, channel_problems, over
from rmploss.ops import NeuronOptions
from rmploss.ops.constants import vector
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import open_stats
from rmploss.surrogate import as_surrogate


class WeightedMean(nn.Module):
    """Read-out `[T, B, K]` to `[B, K]`: the mean over time with weights decay^(T-t), sum 1."""

    @checked()
    def __init__(self, decay: float) -> None:
        super().__init__()
        self.decay = decay

    @entry
    def forward(self, x: Tensor) -> Tensor:
        """The mean of x over its first dimension; float32 at least."""
        return weighted_mean(ops.at_least_single(x), self.decay)

    def extra_repr(self) -> str:
        """The factor between the weights of two steps."""
        return f"decay={self.decay:.4g}"


class _DSR(SpikingLayer):
    """DSR neurons: `[T, B, C, ...]` input current to o of the same shape, 0 or h.

    decay: of the recursion; slope: 1 / tau; height: h / V_th; closed: whether the ends belong to
    the inside of the clamp. Those of neurons without leak are written here.
    """

    unregularized: ClassVar[str | None] = (
        "its gradient is a closed form over all steps, not one of the membrane at each step"
    )
    decay: float = 1.0
    slope: float = 1.0
    height: float = 1.0
    closed: bool = True

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None,
        threshold: float,
        bound: float,
        alpha: float,
        threshold_gain: float,
    ) -> None:
        super().__init__(channels, v_threshold=alpha)
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))
        self.bound = bound
        self.threshold_gain = threshold_gain
        self.released = False

    @entry
    def forward(self, x: Tensor) -> Tensor:
        """The outputs o `[T, B, C, ...]` of the input current x, in its type.

        The steps of x may be one step expanded: a static image.
        """
        check_axes(x, self.channels)
        stats = open_stats()
        spec = None if stats is None else replace(stats.spec, differentiable=False)
        current, repeats = x.detach(), 1
        if x.shape[0] > 1 and not x.stride(0):  # one step, expanded
            current, repeats = current[:1], x.shape[0]
        with torch.no_grad():
            gain = self._gain().expand(x.shape[2])
            spikes, moments, _ = ops.lif(current, gain=gain, repeats=repeats, **self._rule(spec))
        if stats is not None and moments is not None:
            stats.record(self, moments, spikes.numel() // spikes.shape[2])
        return spikes if self.released else _Represent.apply(x, self.threshold, spikes, self)

    def release(self) -> Tensor | None:
        """h `[1]`, taken away: from now on the spikes are binary. None: they were before."""
        if self.released:
            return None
        self.released = True
        return (self.threshold.detach() * self.height).view(1)

    @property
    def is_binary(self) -> bool:
        """Whether the height was released."""
        return self.released

    @entry
    def membrane(self, x: Tensor) -> Tensor:
        """U / V_th before the reset `[T, B, C, ...]`, without gradient: to look at."""
        rule = self._rule(None)
        return functional.membrane(
            x.detach() * self._gain(),
            decay=rule["decay"],
            v_threshold=rule["v_threshold"],
            v_reset=None,
            reset_by=1.0,
        )

    def firing_current(self) -> float:
        """alpha V_th / k."""
        return over(self.v_threshold, self._gain())

    def constrain(self) -> None:
        """Keep V_th at its bound or above; the authors' code does it in its forward."""
        self.threshold.clamp_(min=self.bound)

    def readout(self) -> nn.Module:
        """What reads the value of a train `[T, B, K]` of these neurons: its (weighted) mean."""
        return Accumulator(reduction="mean") if self.decay == 1 else WeightedMean(self.decay)

    def extra_repr(self) -> str:
        """The values that differ between neurons."""
        return (
            f"threshold={float(self.threshold.detach()):.4g}, bound={self.bound}, "
            f"alpha={self.v_threshold}, decay={self.decay:.4g}"
        )

    def _gain(self) -> Tensor:
        """k / V_th: the neurons are computed in units of V_th."""
        gain = 1.0 if self.decay == 1 else 1 - self.decay
        return gain / self.threshold.detach()

    def _rule(self, spec: MomentSpec | None) -> NeuronOptions:
        return {
            "decay": self.decay,
            "v_threshold": self.v_threshold,
            "v_reset": None,
            "reset_by": 1.0,
            "detach_reset": True,
            "surrogate": as_surrogate("rectangle"),  # unused: no gradient passes it
            "moments": spec,
        }


class DSRIF(_DSR):
    """DSR without leak; all dimensionless.

    channels: of `LIF`.
    threshold: V_th at the start, learnt, one per layer.
    bound: V_th stays at or above it.
    alpha: neurons fire at alpha V_th.
    threshold_gain: c, 1 in the authors' code (0.001 in their code for ImageNet).

    Raises `UserError` for values out of range.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        threshold: float = 6.0,
        bound: float = 0.01,
        alpha: float = 0.5,
        threshold_gain: float = 1.0,
    ) -> None:
        _check(channels, threshold, bound, alpha=alpha, threshold_gain=threshold_gain)
        super().__init__(channels, threshold, bound, alpha, threshold_gain)


class DSRLIF(_DSR):
    """DSR with leak e^(-dt/tau); all dimensionless.

    channels: of `LIF`.
    threshold: V_th at the start, learnt, one per layer.
    bound: V_th stays at or above it.
    alpha: neurons fire at alpha V_th.
    tau, dt: time constant and time step, in one unit.
    threshold_gain: c; None: dt, as in the authors' code.

    Raises `UserError` for values out of range.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        threshold: float = 0.3,
        bound: float = 0.0005,
        alpha: float = 0.3,
        tau: float = 1.0,
        dt: float = 0.05,
        threshold_gain: float | None = None,
    ) -> None:
        c = dt if threshold_gain is None else threshold_gain
        _check(channels, threshold, bound, alpha=alpha, tau=tau, dt=dt, threshold_gain=c)
        super().__init__(channels, threshold, bound, alpha, c)
        self.decay = math.exp(-dt / tau)
        self.slope = 1 / tau
        self.height = 1 / dt
        self.closed = False


class _Represent(torch.autograd.Function):
    """Input current, V_th and the spikes of the exact forward to o; backward by representation.

    Keeps where M is inside the clamp and where above it: two bytes for all steps of a neuron.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, threshold: Tensor, spikes: Tensor, neuron: _DSR) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        mean = weighted_mean(ops.at_least_single(x), neuron.decay)
        top = threshold * (neuron.height / neuron.slope)
        above = mean > top
        inside = (mean >= 0) & ~above if neuron.closed else (mean > 0) & (mean < top)
        ctx.save_for_backward(inside, above)
        ctx.neuron, ctx.steps = neuron, x.shape[0]
        return spikes * (threshold * neuron.height).to(spikes.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        inside, above = ctx.saved_tensors
        neuron, T = ctx.neuron, ctx.steps
        mean = weighted_mean(ops.at_least_single(g), neuron.decay)  # G / T
        g_x = (mean * inside * neuron.slope).to(g.dtype).expand(T, *mean.shape)
        g_threshold = (mean * above).sum() * (T * neuron.threshold_gain)
        return g_x, g_threshold.to(neuron.threshold.dtype), None, None


def weighted_mean(x: Tensor, decay: float) -> Tensor:
    """sum_t decay^(T-t) x(t) / sum_j decay^j of x `[T, ...]`, of the shape of one step."""
    T = x.shape[0]
    if T == 1 or x.stride(0) == 0:  # one step, expanded
        return x[0]
    if decay == 1:
        return x.mean(0)
    powers = [decay ** (T - 1 - t) for t in range(T)]
    total = sum(powers)
    # Built on the device and kept: a copy from the host cannot be captured.
    weights = vector(tuple((power / total, 1) for power in powers), x.dtype, x.device)
    # The steps as rows, without a copy where memory is channels last.
    rows = x.movedim(2, -1) if x.ndim > 3 else x
    with torch.autocast(x.device.type, enabled=False):
        mean = (weights @ rows.reshape(T, -1)).view(rows.shape[1:])
    return mean.movedim(-1, 1) if x.ndim > 3 else mean


def _check(channels: int | None, threshold: float, bound: float, **positive: float) -> None:
    """Raise `UserError` with everything that is wrong with the constants."""
    problems = channel_problems(channels)
    problems += [
        Problem(f"{name} = {value!r}", "must be positive")
        for name, value in {"bound": bound, **positive}.items()
        if not 0 < value < math.inf
    ]
    if not max(bound, 0) <= threshold < math.inf:
        what = f"must be at least bound = {bound!r}"
        problems.append(Problem(f"threshold = {threshold!r}", what, "the paper: IF 6, LIF 0.3"))
    if problems:
        raise UserError("bad neuron", problems)
