"""Moments of every time step `[T, 4, C]`: the kernels run step by step, the membrane goes between.

    forward   u(t), moments(t) = kernel(x(t), u(t-1))          t = 1..T
    backward  u(1..T-1) once more, then for t = T..1
              g_x(t), g_u(t-1), sums(t) = kernel(x(t), u(t-1); g_o(t), G(t), g_u(t))

A kernel's own moments are sums over its steps, so those of one step are what it takes of one step.
Such kernels know nothing of it: layers whose moments are sums over time cost what they did. Those
of GPUs, where launches are dear, take the moments of every step in one pass themselves.
"""

from typing import Any

import torch
from torch import Tensor

from rmploss.ops.lif.inputs import LIFRows, Readers


def forward(kernels: Any, rows: LIFRows, dense: bool, bits: bool, last: bool) -> tuple[Tensor, ...]:
    """As `Kernels.forward`, with moments `[T, 4, C]`."""
    steps, u = [], rows.start
    for t in range(rows.steps):
        found = kernels.forward(_step(rows, t, u), dense, bits, True)
        u = found[2]
        steps.append(found)
    spikes, moments, lasts, words, counts = zip(*steps, strict=True)
    return (
        torch.cat(spikes) if dense else spikes[0],
        torch.stack(moments),
        lasts[-1] if last else lasts[-1].new_empty(0),
        torch.cat(words) if bits else words[0],
        torch.stack(counts).sum() if bits else counts[0],
    )


def backward(
    kernels: Any,
    rows: LIFRows,
    g_spikes: Tensor | None,
    g_moments: Tensor,
    g_last: Tensor | None,
    constants: bool,
    readers: Readers | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """As `Kernels.backward`, for the gradient `[T, 4, C]` of the moments."""
    assert readers is None  # kernels that know of several readers take the steps themselves
    silent = rows._replace(neuron=rows.neuron._replace(moments=False))
    starts = [rows.start]
    for t in range(rows.steps - 1):
        starts.append(kernels.forward(_step(silent, t, starts[t]), False, False, True)[2])
    g_u, g_x, sums = g_last, [], []
    for t in reversed(range(rows.steps)):
        arriving = None if g_spikes is None else g_spikes[t : t + 1]
        given = (arriving, g_moments[t], g_u, constants)
        found = kernels.backward(_step(rows, t, starts[t]), *given)
        g_x.append(found[0])
        g_u = found[1]
        sums.append(found[2])
    assert g_u is not None
    whole = torch.cat(g_x[::-1])
    if rows.is_static:
        whole = whole.sum(0, keepdim=True)
    total = torch.stack(sums).sum(0, dtype=torch.float64)
    return whole, g_u, total.to(rows.decay.dtype)


def _step(rows: LIFRows, t: int, start: Tensor | None) -> LIFRows:
    """The layer at time t alone, with the membrane `[R, C]` before it."""
    R = rows.shape[1]
    residual, bits = rows.residual, rows.residual_bits
    return rows._replace(
        y=rows.y if rows.is_static else rows.y[t : t + 1],
        residual=None if residual is None else residual[t : t + 1],
        residual_bits=None if bits is None else bits[t * R : (t + 1) * R],
        start=start,
        steps=1,
    )
