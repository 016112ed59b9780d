"""The operations as the paper writes them: LIF neurons (Eqs. 1-3) and tdBN (Eqs. 6-7) before them.

Autograd does the backward; any device, float64 too. This file is the truth that every other
backend is tested against. README.md beside it derives the recursion that backward performs.
"""

from typing import Unpack

import torch
from torch import Tensor

from rmploss.ops.lif import tdbn
from rmploss.ops.lif.inputs import NeuronOptions
from rmploss.ops.lif.moments import membrane_moments
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
    reset_by: float | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One time step. Returns the spikes o, the membrane u_pre before the reset, and u after it.

    x: input current `[B, C, ...]`; u: membrane after the previous step, same shape; decay and
    v_threshold: a number or a tensor that broadcasts; v_reset: the potential after a spike, or
    None for the soft reset, which subtracts reset_by (None: the threshold).
    """
    u_pre = decay * u + x  # Eq. 1
    o = surrogate(u_pre - v_threshold)  # Eq. 2
    reset = o.detach() if detach_reset else o
    if v_reset is None:
        u = u_pre - (v_threshold if reset_by is None else reset_by) * reset
    else:
        u = u_pre * (1 - reset) + v_reset * reset  # Eq. 3, where v_reset = 0
    return o, u_pre, u


def lif(
    x: Tensor,
    u: Tensor | None = None,
    *,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    repeats: int = 1,
    **neuron: Unpack[NeuronOptions],
) -> tuple[Tensor, Tensor | None, Tensor]:
    """All time steps of one layer with the input current gain x + bias + residual.

    x: `[T, B, C, ...]`, or `[1, B, C, ...]` that stands for `repeats` equal steps; u: membrane
    before the first step, `[B, C, ...]`, at rest if None; gain, bias: `[C]`; residual:
    `[T, B, C, ...]`. Returns the spikes `[T, B, C, ...]`, the moments `[4, C]` or `[T, 4, C]` (None
    without a `MomentSpec`) and the membrane after the last step.
    """
    moments, surrogate = neuron.get("moments"), neuron["surrogate"]
    decay = tdbn.per_channel(neuron["decay"], x)
    threshold = tdbn.per_channel(neuron["v_threshold"], x)
    x = tdbn.normalize(x, None, gain, bias)
    if repeats > 1:
        x = x.expand(repeats, *x.shape[1:])
    if residual is not None:
        x = x + residual
    last = torch.full_like(x[0], neuron["v_reset"] or 0.0) if u is None else u
    spikes: list[Tensor] = []
    sums: list[Tensor] = []
    for x_t in x.unbind(0):
        o, u_pre, last = lif_step(
            x_t,
            last,
            decay=decay,
            v_threshold=threshold,
            v_reset=neuron["v_reset"],
            reset_by=neuron.get("reset_by"),
            detach_reset=neuron["detach_reset"],
            surrogate=surrogate,
        )
        spikes.append(o)
        if moments is not None:
            potential, target = u_pre, o
            if moments.potential == "input":
                potential, target = x_t, surrogate(x_t - threshold)
            sums.append(membrane_moments(potential, o, target, moments))
    if moments is None:
        return torch.stack(spikes), None, last
    per_step = torch.stack(sums)
    return torch.stack(spikes), per_step if moments.per_step else per_step.sum(0), last


def norm_lif(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    u: Tensor | None = None,
    *,
    eps: float,
    residual: Tensor | None = None,
    repeats: int = 1,
    sync: bool = False,
    **neuron: Unpack[NeuronOptions],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """tdBN (Eqs. 6-7), the shortcut and `lif`; in training, by the statistics of y itself.

    y: `[T, B, C, ...]`; weight, bias: `[C]`, the weight with the factor alpha V_th. Returns what
    `lif` returns, and the mean and the biased variance of y per channel, `[C]`, without gradient.
    """
    mean, var = tdbn.statistics(y, sync)
    x = tdbn.normalize(y, mean, tdbn.gain(weight, var, eps), bias)
    spikes, moments, last = lif(x, u, residual=residual, repeats=repeats, **neuron)
    return spikes, moments, last, mean.detach(), var.detach()
