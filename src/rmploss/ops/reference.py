"""The leaky integrate-and-fire neuron as the paper writes it (Eqs. 1-3), looped over time.

Autograd does the backward; any device, float64 too. This file is the truth that every other
provider is tested against. README.md beside it derives the recursion that backward performs.
"""

import torch
from torch import Tensor

from rmploss.ops.moments import MomentSpec, membrane_moments
from rmploss.surrogate import Surrogate


def lif_step(
    x: Tensor,
    u: Tensor,
    *,
    decay: float | Tensor,
    v_threshold: float | Tensor,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
) -> tuple[Tensor, Tensor, Tensor]:
    """One time step. Returns the spikes o, the membrane u_pre before the reset, and u after it.

    x: input current `[B, C, ...]`; u: membrane after the previous step, same shape; decay and
    v_threshold: a number or a tensor that broadcasts; v_reset: the potential after a spike, or
    None for the soft reset, which subtracts the threshold.
    """
    u_pre = decay * u + x  # Eq. 1
    o = surrogate(u_pre - v_threshold)  # Eq. 2
    reset = o.detach() if detach_reset else o
    if v_reset is None:  # noqa: SIM108  two resets, two lines
        u = u_pre - v_threshold * reset
    else:
        u = u_pre * (1 - reset) + v_reset * reset  # Eq. 3, where v_reset = 0
    return o, u_pre, u


def lif(
    x: Tensor,
    u: Tensor,
    *,
    decay: float | Tensor,
    v_threshold: float | Tensor,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    moments: MomentSpec | None,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """All time steps of one layer.

    x: `[T, B, C, ...]`; u: membrane before the first step, `[B, C, ...]`; the rest as in
    `lif_step`. Returns the spikes `[T, B, C, ...]`, the moments `[4, C]` (None without a
    `MomentSpec`) and the membrane after the last step.
    """
    spikes: list[Tensor] = []
    sums: list[Tensor] = []
    for x_t in x.unbind(0):
        o, u_pre, u = lif_step(
            x_t,
            u,
            decay=decay,
            v_threshold=v_threshold,
            v_reset=v_reset,
            detach_reset=detach_reset,
            surrogate=surrogate,
        )
        spikes.append(o)
        if moments is not None:
            potential, target = u_pre, o
            if moments.potential == "input":
                potential, target = x_t, surrogate(x_t - v_threshold)
            sums.append(membrane_moments(potential, o, target, moments))
    return torch.stack(spikes), torch.stack(sums).sum(0) if sums else None, u
