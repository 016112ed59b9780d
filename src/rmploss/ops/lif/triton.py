"""The LIF operation by GPU kernels (triton_kernels/), compiled by Triton when they first run."""

import math
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from rmploss.ops import triton as launch
from rmploss.ops.lif.inputs import KINDS, LIFRows, Readers
from rmploss.ops.lif.tdbn import Running
from rmploss.ops.triton import OPTIONS, cut, elements, on
from rmploss.surrogate import ArcTan, ClippedTanh

READS_HALF = True
WRITES_DENSE = True
SCALES = True
TRACKS = True
FORKS = True
TAKES_STEPS = True

UNROLLED_FORWARD, UNROLLED_BACKWARD = 8, 16
"""Up to so many steps (float64: half) the loop over time is unrolled. Forward then asks for the
current of all steps at once, backward keeps u_pre of all of them in registers."""


def forward(rows: LIFRows, dense: bool, bits: bool, last: bool) -> tuple[Tensor, ...]:
    """One pass over y: norm, shortcut, Eqs. 1-3, the moments, and the spikes as bits."""
    (T, R, C), y = rows.shape, rows.y
    like = rows.decay  # of the type that is computed in
    spikes = y.new_empty(T, R, C) if dense else None
    u = like.new_empty(R, C) if last else None
    words = y.new_empty(T * R, -(-C // 64), dtype=torch.int64) if bits else None
    tile, programs, tiles = cut(R, C, elements(y.dtype))
    assert not bits or tile["BLOCK_C"] >= min(C, 64)  # a program writes whole words
    partial = None
    if rows.neuron.moments:
        each = (T,) if rows.neuron.per_step else ()
        partial = like.new_empty(programs[0], *each, 4, C)
    with on(y):
        _kernels("neurons").lif_forward[programs](
            *_inputs(rows), spikes, words, u, partial, T, R, C, tiles,
            STEPS=_unrolled(rows, UNROLLED_FORWARD), **_neuron(rows),
            MOMENTS=rows.neuron.moments, **tile, **OPTIONS,
        )  # fmt: skip
    nothing, count = like.new_empty(0), y.new_empty((), dtype=torch.int64)  # nobody reads it
    return (
        nothing if spikes is None else spikes,
        nothing if partial is None else _total(partial),
        nothing if u is None else u,
        count.new_empty(0) if words is None else words,
        count,
    )


def backward(
    rows: LIFRows,
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
    readers: Readers | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """One pass: the membrane forward once more, in registers, then the reverse loop."""
    (T, R, C), y, neuron = rows.shape, rows.y, rows.neuron
    g_shortcut, g_means, width = readers or (None, None, 0)
    like = rows.decay  # of the type that is computed in
    g_current = y.new_empty(y.shape, dtype=rows.current_dtype)
    g_start = None if rows.start is None else like.new_empty(R, C)
    steps = _unrolled(rows, UNROLLED_BACKWARD)
    scratch = None if steps else like.new_empty(T, R, C)
    tile, programs, tiles = cut(R, C, _backward_tile(like, steps))
    partial = like.new_empty(programs[0], 4, C)
    with on(y):
        _kernels("neurons").lif_backward[programs](
            *_inputs(rows),
            *(_dense(g) for g in (g_spikes, g_shortcut, g_means, g_moments, g_last)),
            g_current, g_start, partial, scratch, T, R, C, tiles, width,
            STEPS=steps, **_neuron(rows), CONSTANTS=constants, DETACH_RESET=neuron.detach_reset,
            DETACH_TARGET=neuron.detach_target, KIND=neuron.surrogate, SLOPE=neuron.slope,
            SCALE=scale(neuron.surrogate, neuron.slope), DAMPING=neuron.damping, **tile, **OPTIONS,
        )  # fmt: skip
    return g_current, like.new_empty(0) if g_start is None else g_start, _total(partial)


def statistics(y: Tensor, running: Running | None = None) -> Tensor:
    """In the type of y, or float32, within a thread, float64 between them: no cancellation."""
    C, y = y.shape[-1], y.contiguous()
    R = y.numel() // C
    loads = launch.LOADS
    tile, programs, tiles = cut(R, C, elements(y.dtype), loads)
    partial = y.new_empty(programs[0], 2, C, dtype=torch.float64)
    out = y.new_empty(3, C, dtype=torch.float64)
    mean, var, momentum, values = running or (None, None, 0.0, 0)
    with on(y):
        kernels = _kernels("norm")
        kernels.statistics[programs](y, partial, R, C, tiles, LOADS=loads, **tile, **OPTIONS)
        # Few columns for a program: all of them together have little to read.
        across, height = (-(-C // 8),), tiles * loads * tile["BLOCK_R"]
        kernels.combine[across](
            y.view(-1, C)[0], partial, mean, var, out, programs[0], R, C, height, values,
            MOMENTUM=momentum, BLOCK_R=64, BLOCK_C=8, **OPTIONS,
        )  # fmt: skip
    return out


def norm_gradient(rows: LIFRows, g_x: Tensor, sums: Tensor, out: Tensor) -> None:
    """One pass; a program computes its numbers per channel once, in float64."""
    assert g_x.is_contiguous()
    assert out.is_contiguous()
    C = rows.y.shape[-1]
    R = rows.y.numel() // C
    tile, programs, tiles = cut(R, C, elements(rows.y.dtype), launch.LOADS)
    given = (_dense(x) for x in (rows.y, rows.statistics, rows.gain, sums))
    with on(rows.y):
        _kernels("norm").norm_gradient[programs](
            g_x, *given, out, R, C, tiles, EPS=rows.eps, FACTOR=rows.scale, LOADS=launch.LOADS,
            **tile, **OPTIONS,
        )  # fmt: skip


def scale(kind: int, slope: float) -> float:
    """The factor that a surrogate's derivative has beside its parameter, in full precision."""
    if kind == KINDS[ClippedTanh]:
        return slope / (2 * math.tanh(slope / 2))
    if kind == KINDS[ArcTan]:
        return math.pi / 2 * slope
    return 1 / slope


@cache
def _kernels(of: str) -> Any:
    """The module with the kernels of neurons or norm: the first call imports Triton."""
    return import_module(f"rmploss.ops.lif.triton_kernels.{of}")


def _unrolled(rows: LIFRows, limit: int) -> int:
    """The number of steps where the loop over time is unrolled, else 0."""
    return rows.steps if rows.steps * rows.decay.element_size() <= 4 * limit else 0


def _backward_tile(like: Tensor, steps: int) -> int:
    """The elements of a tile whose u_pre of all steps fits into registers (on Hopper, by ptxas).

    4 for a thread, also in half precision, where 8 would be spilled: each has two loads per step.
    """
    words = steps * like.element_size() // 4
    return launch.TILE // (1 if words <= 6 else 2 if words <= 12 else 4)


def _inputs(rows: LIFRows) -> tuple[Tensor | None, ...]:
    """What forward and backward read, in the order of the kernels' first parameters."""
    residual = rows.residual if rows.residual_bits is None else rows.residual_bits
    return tuple(
        _dense(x)
        for x in (
            rows.y, rows.statistics, rows.gain, rows.bias, residual, rows.start, rows.decay,
            rows.threshold,
        )
    )  # fmt: skip


def _neuron(rows: LIFRows) -> dict[str, Any]:
    """The constants that forward and backward share."""
    return {
        "STATIC": rows.is_static,
        "BITS": rows.residual_bits is not None,
        "RESET": rows.neuron.reset,
        "RESET_TO": rows.neuron.reset_to,
        "EPS": rows.eps,
        "FACTOR": rows.scale,
        "PER_STEP": rows.neuron.per_step,
        "OF_INPUT": rows.neuron.of_input,
        "P": rows.neuron.p,
    }


def _dense(x: Tensor | None) -> Tensor | None:
    """x itself, or a copy of an expanded or strided one."""
    return None if x is None else x.contiguous()


def _total(partial: Tensor) -> Tensor:
    """The sums `[..]` of `partial` `[programs, ..]`, added in float64."""
    programs, width = partial.shape[0], partial[0].numel()
    out = partial.new_empty(partial.shape[1:])
    with on(partial):
        _kernels("norm").fold[(-(-width // 16),)](
            partial, out, programs, width, BLOCK_R=64, BLOCK_C=16, **OPTIONS
        )
    return out
