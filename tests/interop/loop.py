"""One layer of neurons as a plain loop over time, from the equations alone, in float64.

    h(t) = decay v(t-1) + gain x(t) + bias
    o(t) = 1[h(t) >= V_th], or 1[h(t) > V_th]
    v(t) = h(t) (1 - o(t)) + v_reset o(t)               or  h(t) - amount o(t)

All the oracle's own: the attached layers are compared with it, not with each other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Derivative = Callable[[Tensor], Tensor]
"""The surrogate derivative as a function of h - V_th."""


@dataclass(frozen=True, kw_only=True)
class Neuron:
    """The constants of one layer; numbers, or tensors of the graph.

    v_reset: after a spike; None: `amount` is subtracted.
    rest: the potential that is 0 in the unit of Eq. 8.
    strict: fire above the threshold only.
    single: spikes are float32, as in libraries that fire with `.float()`; their gradient is, too.
    """

    derivative: Derivative
    decay: Any = 0.5
    gain: Any = 1.0
    bias: Any = 0.0
    threshold: Any = 1.0
    v_reset: float | None = 0.0
    amount: Any = 1.0
    rest: Any = 0.0
    start: float = 0.0
    detach: bool = False
    strict: bool = False
    single: bool = False

    def unit(self, u: Tensor) -> Tensor:
        """u in the unit of Eq. 8: 0 at rest, 1/2 at the threshold."""
        return (u - self.rest) / (self.threshold - self.rest) / 2


class Fire(torch.autograd.Function):
    """The step function with a surrogate derivative."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, neuron: Neuron) -> Tensor:
        ctx.save_for_backward(v)
        ctx.neuron = neuron
        fires = v > 0 if neuron.strict else v >= 0
        return fires.to(torch.float32 if neuron.single else v.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grads[0] * ctx.neuron.derivative(v), None


def run(x: Tensor, neuron: Neuron) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, membranes before the reset in the unit of Eq. 8, and the last membrane.

    x: input current `[T, B, ...]`.
    """
    v = torch.full_like(x[0], neuron.start)
    spikes, membranes = [], []
    for x_t in x:
        h = neuron.decay * v + neuron.gain * x_t + neuron.bias
        o = Fire.apply(h - neuron.threshold, neuron)
        assert isinstance(o, Tensor)
        r = o.detach() if neuron.detach else o
        reset = neuron.v_reset
        v = h - neuron.amount * r if reset is None else h * (1 - r) + reset * r
        spikes.append(o)
        membranes.append(neuron.unit(h))
    return torch.stack(spikes), torch.stack(membranes), v


def moments(spikes: Tensor, u: Tensor, p: float = 2.0) -> Tensor:
    """The sums of u, u^2, |o - u|^p and o over time, batch and space, `[4, C]`."""
    o = spikes.to(u.dtype)
    over = [axis for axis in range(u.ndim) if axis != 2]
    rows = (u, u * u, (o.detach() - u).abs() ** p, o)
    return torch.stack([row.sum(over) for row in rows])


class Oracle(nn.Module):
    """A layer of these neurons in a network, `[T, B, C, ...]`; it keeps its moments."""

    def __init__(self, neuron: Neuron) -> None:
        super().__init__()
        self.neuron = neuron
        self.moments = torch.zeros(())

    def forward(self, x: Tensor) -> Tensor:
        """The spikes."""
        spikes, u, _ = run(x, self.neuron)
        self.moments = moments(spikes, u)
        return spikes


def atan(alpha: float = 2.0) -> Derivative:
    """alpha/2 / (1 + (pi/2 alpha v)^2)."""
    return lambda v: alpha / 2 / (1 + (torch.pi / 2 * alpha * v) ** 2)


def sigmoid(alpha: float = 4.0) -> Derivative:
    """alpha s (1 - s)."""
    return lambda v: alpha / (2 + torch.exp(alpha * v) + torch.exp(-alpha * v))


def tent(alpha: float = 1.0) -> Derivative:
    """alpha - alpha^2 |v|, at least 0."""
    return lambda v: (alpha - alpha**2 * v.abs()).clamp(min=0)


def box(alpha: float = 1.0) -> Derivative:
    """alpha where |v| < 1 / (2 alpha)."""
    return lambda v: alpha * (v.abs() < 0.5 / alpha).to(v.dtype)


def soft_sign(alpha: float = 2.0) -> Derivative:
    """1 / (2 alpha (1/alpha + |v|)^2)."""
    return lambda v: 1 / (2 * alpha * (1 / alpha + v.abs()) ** 2)


def fast_sigmoid(slope: float = 25.0) -> Derivative:
    """1 / (1 + slope |v|)^2, also named SuperSpike."""
    return lambda v: 1 / (1 + slope * v.abs()) ** 2


def exponential(width: float, threshold: float = 1.0) -> Derivative:
    """exp(-|v| / a) / a with a = width V_th (sinabs's SingleExponential)."""
    a = width * threshold
    return lambda v: torch.exp(-v.abs() / a) / a


def close(ours: Tensor, theirs: Tensor, relative: float = 1e-12) -> None:
    """Fail unless two float64 tensors agree to a part of the largest value among them."""
    assert ours.shape == theirs.shape
    scale = float(theirs.detach().abs().max())
    error = float((ours - theirs).detach().abs().max())
    assert error <= relative * scale, f"{error:.3g} of {scale:.3g}"
