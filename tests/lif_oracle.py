"""The neuron once more, in NumPy and without autograd: what every backend is compared with.

Forward is Eqs. 1-3, 5, 8 and 9 as the paper prints them, element by element. Backward is the
reverse recursion over time, derived by hand. With D = dL/du(t) coming from the step after,

    dL/do     = g_o + g_4 + D (v_reset - u_pre)     or  - D V_th,  soft     or nothing, detached
    dL/du_pre = phi'(u_pre - V_th) dL/do + D (1 - o)     or  + D,  soft
              + g_1 + 2 u_pre g_2 + g_3 dq/du_pre
    dL/dx     = dL/du_pre                  and       D of the step before = decay dL/du_pre

Arrays are float64, `[T, B, C, ...]`; moments `[4, C]`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Elementwise = Callable[[Array], Array]


def clipped_tanh(v: Array) -> Array:
    """Eq. 5, written in u = v + 1/2."""
    u = v + 0.5
    inner = np.tanh(3 * (u - 0.5)) / (2 * np.tanh(1.5)) + 0.5
    return np.where(u < 0, 0.0, np.where(u > 1, 1.0, inner))


def clipped_tanh_slope(v: Array) -> Array:
    """3 / (2 tanh(3/2)) sech^2(3 v) where 0 <= u <= 1."""
    inside = (v >= -0.5) & (v <= 0.5)
    return np.where(inside, 3 / (2 * np.tanh(1.5)) / np.cosh(3 * np.where(inside, v, 0)) ** 2, 0.0)


def triangle(v: Array) -> Array:
    """(1 + v)^2 / 2 below zero, 1 - (1 - v)^2 / 2 above."""
    v = np.clip(v, -1, 1)
    return np.where(v < 0, (1 + v) ** 2 / 2, 1 - (1 - v) ** 2 / 2)


PHI: dict[str, Elementwise] = {
    "clipped_tanh": clipped_tanh,
    "rectangle": lambda v: np.minimum(np.maximum(v + 0.5, 0.0), 1.0),
    "triangle": triangle,
    "sigmoid": lambda v: 1 / (1 + np.exp(-4 * v)),
    "arctan": lambda v: np.arctan(np.pi * v) / np.pi + 0.5,
}
"""Every surrogate of the table, with its default options: the primitive of v = u_pre - V_th."""

PHI_SLOPE: dict[str, Elementwise] = {
    "clipped_tanh": clipped_tanh_slope,
    "rectangle": lambda v: np.where((v > -0.5) & (v < 0.5), 1.0, 0.0),
    "triangle": lambda v: np.maximum(0.0, 1 - np.abs(v)),
    "sigmoid": lambda v: 1 / np.cosh(2 * v) ** 2,
    "arctan": lambda v: 1 / (1 + (np.pi * v) ** 2),
}
"""Their derivatives."""

KINKS: dict[str, tuple[float, ...]] = {
    "clipped_tanh": (-0.5, 0.5),
    "rectangle": (-0.5, 0.5),
    "triangle": (-1.0, 0.0, 1.0),
    "sigmoid": (),
    "arctan": (),
}
"""Where a derivative, or the derivative of it, jumps: no place for finite differences."""


def step(v: Array) -> Array:
    """The firing function of Eq. 2."""
    return np.where(v >= 0, 1.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """The constants of one layer, as in `rmploss.functional.lif` and `MomentSpec`."""

    surrogate: str = "clipped_tanh"
    decay: float = 0.25
    v_threshold: float = 0.5
    v_reset: float | None = 0.0
    reset_by: float | None = None
    detach_reset: bool = False
    p: float = 2.0
    potential: Literal["u_pre", "input"] = "u_pre"
    detach_target: bool = True

    @property
    def amount(self) -> float:
        """What the soft reset subtracts."""
        return self.v_threshold if self.reset_by is None else self.reset_by


@dataclass(frozen=True)
class Trace:
    """What a forward went through; target: the spike that the potential is compared with."""

    u_pre: Array
    o: Array
    potential: Array
    target: Array
    u: Array
    moments: Array


def forward(
    x: Array, u: Array, neuron: Neuron, *, fire: Elementwise = step, frozen: Trace | None = None
) -> Trace:
    """All time steps; u: the membrane before the first.

    frozen: the run whose spikes stand in for the detached ones, so that a finite difference sees
    them as the constants that they are.
    """
    potentials, spikes, measured, targets = [], [], [], []
    for t in range(len(x)):
        u_pre = neuron.decay * u + x[t]
        o = fire(u_pre - neuron.v_threshold)
        reset = frozen.o[t] if frozen is not None and neuron.detach_reset else o
        if neuron.v_reset is None:
            u = u_pre - neuron.amount * reset
        else:
            u = u_pre * (1 - reset) + neuron.v_reset * reset
        on_input = neuron.potential == "input"
        potentials.append(u_pre)
        spikes.append(o)
        measured.append(x[t] if on_input else u_pre)
        targets.append(fire(x[t] - neuron.v_threshold) if on_input else o)
    target = np.stack(targets)
    compared = frozen.target if frozen is not None and neuron.detach_target else target
    potential, o = np.stack(measured), np.stack(spikes)
    over = tuple(axis for axis in range(x.ndim) if axis != 2)
    error = np.abs(compared - potential) ** neuron.p
    moments = np.stack([a.sum(over) for a in (potential, potential**2, error, o)])
    return Trace(np.stack(potentials), o, potential, target, u, moments)


def backward(
    trace: Trace,
    neuron: Neuron,
    g_spikes: Array,
    g_moments: Array,
    g_last: Array,
    *,
    bound: bool = False,
) -> tuple[Array, Array]:
    """dL/dx `[T, ...]` and dL/du of the membrane before the first step.

    g_spikes, g_moments, g_last: dL/d of the spikes, the moments and the last membrane. bound: the
    same recursion over absolute values, which is what rounding errors are relative to; there the
    slope of the surrogate counts with its peak, as its error near zero is not relative.
    """
    size: Elementwise = np.abs if bound else lambda a: a
    derivative = PHI_SLOPE[neuron.surrogate]
    peak = derivative(np.zeros(1))[0]

    def slope(v: Array) -> Array:
        return np.full_like(v, peak) if bound else derivative(v)

    channels = (-1, *[1] * (trace.o.ndim - 3))
    g1, g2, g3, g4 = (size(row).reshape(channels) for row in g_moments)
    through_target = 0.0 if neuron.detach_target else 1.0
    g_u = size(g_last)
    g_x = np.empty_like(trace.o)
    for t in reversed(range(len(trace.o))):
        u_pre, o, w = trace.u_pre[t], trace.o[t], trace.potential[t]
        dq_do = size(_slope_of_power(trace.target[t] - w, neuron.p))
        dq_dw = dq_do if bound else -dq_do
        g_o = size(g_spikes[t]) + g4
        keep = np.ones_like(o) if neuron.v_reset is None else 1 - o
        if not neuron.detach_reset:
            soft = np.full_like(u_pre, -neuron.amount)
            pull = soft if neuron.v_reset is None else neuron.v_reset - u_pre
            g_o = g_o + g_u * size(pull)
        g_w = g1 + 2 * size(w) * g2 + g3 * dq_dw
        g_target = through_target * g3 * dq_do
        g_now = np.zeros_like(u_pre)
        if neuron.potential == "u_pre":
            g_o = g_o + g_target
            g_now = g_w
        g_pre = g_u * keep + slope(u_pre - neuron.v_threshold) * g_o + g_now
        g_x[t] = g_pre
        if neuron.potential == "input":
            g_x[t] += g_w + slope(w - neuron.v_threshold) * g_target
        g_u = neuron.decay * g_pre
    return g_x, g_u


def _slope_of_power(d: Array, p: float) -> Array:
    """d|d|^p / dd, zero at d = 0."""
    size = np.where(d == 0, 1.0, np.abs(d))
    return p * size ** (p - 1) * np.sign(d)
