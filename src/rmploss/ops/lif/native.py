"""The LIF operation by the native kernels (native/lif.h, native/norm.h), float32 and float64."""

import torch
from torch import Tensor

from rmploss.ops import native
from rmploss.ops.lif.inputs import KINDS, LIFRows
from rmploss.ops.lif.tdbn import Running
from rmploss.ops.native import address

READS_HALF = False
WRITES_DENSE = False
SCALES = False
TRACKS = False
FORKS = False
TAKES_STEPS = False

_SURROGATES: list[int] = []
RESETS: list[int] = []
if native.module is not None:
    _SURROGATES = [native.module.surrogates()[kind.__name__] for kind in KINDS]
    RESETS = [native.module.resets()[name] for name in native.RESETS]


def forward(rows: LIFRows, dense: bool, bits: bool, last: bool) -> tuple[Tensor, ...]:
    """One pass over y: norm, shortcut, Eqs. 1-3, the moments, and the spikes as bits."""
    y, T = rows.y, rows.steps
    _, R, C = y.shape
    u = native.empty(y, R, C) if last else y.new_empty(0)
    spikes = native.empty(y, T, R, C) if dense else y.new_empty(0)
    moments = y.new_empty(4, C) if rows.neuron.moments else y.new_empty(0)
    words = y.new_empty(T * R if bits else 0, -(-C // 64), dtype=torch.int64)
    count = y.new_zeros((), dtype=torch.int64)
    out = native.module.forward(
        spikes=address(spikes, y.dtype),
        bits=address(words, torch.int64),
        count=address(count, torch.int64),
        moments=address(moments, y.dtype),
        last=address(u, y.dtype),
    )
    native.module.lif_forward(_layer(rows), out)
    return spikes, moments, u, words if bits else words.new_empty(0), count


def backward(
    rows: LIFRows,
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
    readers: None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass: the membrane forward once more in registers, then the reverse loop."""
    y = rows.y
    g_current, sums = native.empty(y, *y.shape), y.new_empty(4, y.shape[2])
    g_start = y.new_empty(0) if rows.start is None else native.empty(y, *y.shape[1:])
    gradients = native.module.backward(
        g_spikes=address(g_spikes, y.dtype),
        g_moments=address(g_moments, y.dtype),
        g_last=address(g_last, y.dtype),
        g_current=address(g_current, y.dtype),
        g_start=address(g_start, y.dtype),
        sums=address(sums, y.dtype),
        constants=constants,
    )
    native.module.lif_backward(_layer(rows), gradients)
    return g_current, g_start, sums


def statistics(y: Tensor, running: Running | None = None) -> Tensor:
    """Piecewise in the type of y, combined in float64: no cancellation for any mean."""
    C = y.shape[-1]
    out = torch.empty(3, C, dtype=torch.float64)
    native.module.statistics(
        is_double=y.dtype == torch.float64,
        y=address(y, y.dtype),
        rows=y.numel() // C,
        channels=C,
        out=address(out, out.dtype),
        threads=torch.get_num_threads(),
    )
    return out


def norm_gradient(rows: LIFRows, g_x: Tensor, sums: Tensor, out: Tensor) -> None:
    """One pass; its four numbers per channel are computed in float64."""
    y, dtype, totals = rows.y, g_x.dtype, sums.double()
    C = y.shape[-1]
    native.module.norm_gradient(
        is_double=dtype == torch.float64,
        statistics=address(rows.statistics, torch.float64),
        weight=address(rows.gain, dtype),
        sums=address(totals, torch.float64),
        eps=rows.eps,
        g_x=address(g_x, dtype),
        y=address(y, dtype),
        rows=y.numel() // C,
        channels=C,
        g_y=address(out, dtype),
        threads=torch.get_num_threads(),
    )


def _layer(rows: LIFRows) -> object:
    """The record of a layer that forward and backward share."""
    dtype, neuron = rows.y.dtype, rows.neuron
    _, R, C = rows.y.shape
    return native.module.layer(
        is_double=dtype == torch.float64,
        steps=rows.steps,
        rows=R,
        channels=C,
        is_static=rows.y.shape[0] < rows.steps,
        y=address(rows.y, dtype),
        statistics=address(rows.statistics, torch.float64),
        eps=rows.eps,
        gain=address(rows.gain, dtype),
        bias=address(rows.bias, dtype),
        residual=address(rows.residual, dtype),
        residual_bits=address(rows.residual_bits, torch.int64),
        start=address(rows.start, dtype),
        decay=address(rows.decay, dtype),
        threshold=address(rows.threshold, dtype),
        reset_to=neuron.reset_to,
        reset=RESETS[neuron.reset],
        detach_reset=neuron.detach_reset,
        surrogate=_SURROGATES[neuron.surrogate],
        slope=neuron.slope,
        damping=neuron.damping,
        moments=neuron.moments,
        of_input=neuron.of_input,
        detach_target=neuron.detach_target,
        p=neuron.p,
        threads=torch.get_num_threads(),
    )
