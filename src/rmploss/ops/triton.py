"""The `triton` provider: kernels for GPUs, compiled by Triton when they are first used.

Triton is imported with the first run (triton_kernels), not with this file: a machine without it
loads the package all the same. With TRITON_INTERPRET=1 in the environment before Triton is
imported, the same kernels run on the CPU, slowly, for tests.

Results do not depend on the GPU: how rows are cut into programs depends on the shape alone, sums of
programs are added in their order. Spikes do not depend on the kernel either: products and sums are
never contracted (see triton_kernels).
"""

import math
import os
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

from rmploss.ops import dense
from rmploss.ops.kernels import BROKEN_PROMISE, Current, Spatial, words
from rmploss.ops.rule import KINDS, Rule
from rmploss.surrogate import ArcTan, ClippedTanh

UNROLLED_FORWARD, UNROLLED_BACKWARD = 8, 16
"""Up to so many steps (float64: half) the loop over time is unrolled. Forward then asks for the
current of all steps at once, backward keeps u_pre of all of them in registers."""
TILE = 512
"""Elements of a tile: 4 for a thread, one load of 16 bytes in float32."""
CHANNELS = 64
"""Columns of a tile, at most: 256 bytes of float32, and a word of bits."""
PROGRAMS = 4096
"""Programs of a kernel with sums, at most: several for every place on a GPU, and a sum of sums that
is short beside the tensors."""
BITS_ROWS = 16
"""Rows of a tile of bits."""
OPTIONS = {"num_warps": 4, "num_stages": 1, "enable_fp_fusion": False}
"""Of every launch; the interpreter takes no notice of them, and contracts nothing."""


def missing(device: torch.device) -> str | None:
    """Why these kernels cannot run on a device; None if they can."""
    if not _is_installed():
        return "triton is not installed"
    if device.type == "cpu" and os.environ.get("TRITON_INTERPRET") == "1":
        return None
    if device.type != "cuda":
        return f"its kernels run on GPUs, not on {device.type}"
    return None


@cache
def _is_installed() -> bool:
    return find_spec("triton") is not None


class TritonKernels:
    """`kernels.Kernels` by Triton."""

    reads_half = True
    looks_free = False

    def lif_forward(self, current: Current, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over y: norm, shortcut, Eqs. 1-3 and the moments."""
        (T, R, C), y = current.rows, current.y
        like = current.decay  # of the type in which is computed
        spikes, last = y.new_empty(T, R, C), like.new_empty(R, C)
        tile, programs, tiles = _cut(R, C, TILE)
        partial = like.new_empty(programs[0], 4, C) if rule.moments else None
        with _on(y):
            _kernels("neurons").lif_forward[programs](
                *_inputs(current), spikes, last, partial, T, R, C, tiles,
                STEPS=_unrolled(current, UNROLLED_FORWARD), **_neuron(current, rule),
                MOMENTS=rule.moments, **tile, **OPTIONS,
            )  # fmt: skip
        return spikes, like.new_empty(0) if partial is None else _total(partial), last

    def lif_backward(
        self,
        current: Current,
        rule: Rule,
        g_spikes: Tensor | None,
        g_moments: Tensor | None,
        g_last: Tensor | None,
        constants: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass: the membrane forward once more, in registers, then the reverse loop."""
        (T, R, C), y = current.rows, current.y
        like = current.decay  # of the type in which is computed
        g_current = like.new_empty(y.shape)
        g_start = None if current.start is None else like.new_empty(R, C)
        steps = _unrolled(current, UNROLLED_BACKWARD)
        scratch = None if steps else like.new_empty(T, R, C)
        tile, programs, tiles = _cut(R, C, _backward_tile(like, steps))
        partial = like.new_empty(programs[0], 4, C)
        with _on(y):
            _kernels("neurons").lif_backward[programs](
                *_inputs(current), *(_dense(g) for g in (g_spikes, g_moments, g_last)),
                g_current, g_start, partial, scratch, T, R, C, tiles,
                STEPS=steps, **_neuron(current, rule), DETACH_RESET=rule.detach_reset,
                DETACH_TARGET=rule.detach_target, KIND=rule.surrogate, SLOPE=rule.slope,
                SCALE=scale(rule.surrogate, rule.slope), DAMPING=rule.damping, **tile, **OPTIONS,
            )  # fmt: skip
        return g_current, like.new_empty(0) if g_start is None else g_start, _total(partial)

    def statistics(self, y: Tensor) -> Tensor:
        """In the type of y, or float32, within a thread, float64 between them: no cancellation."""
        C, y = y.shape[-1], y.contiguous()
        R = y.numel() // C
        tile, programs, tiles = _cut(R, C, TILE)
        partial = y.new_empty(programs[0], 3, C, dtype=torch.float64)
        out = y.new_empty(3, C, dtype=torch.float64)
        with _on(y):
            kernels = _kernels("norm")
            kernels.statistics[programs](y, partial, R, C, tiles, **tile, **OPTIONS)
            # Few columns for a program: all of them together have little to read.
            across = (-(-C // 8),)
            kernels.combine[across](
                y, partial, out, programs[0], C, BLOCK_R=64, BLOCK_C=8, **OPTIONS
            )  # fmt: skip
        return out

    def norm_gradient(
        self,
        g_x: Tensor,
        y: Tensor,
        statistics: Tensor,
        weight: Tensor,
        sums: Tensor,
        eps: float,
        out: Tensor,
    ) -> None:
        """One pass; a program computes its numbers per channel once, in float64."""
        assert g_x.is_contiguous()
        assert out.is_contiguous()
        C = y.shape[-1]
        R = y.numel() // C
        tile, programs, tiles = _cut(R, C, TILE)
        given = (x.contiguous() for x in (y, statistics, weight, sums))
        with _on(y):
            _kernels("norm").norm_gradient[programs](
                g_x, *given, out, R, C, tiles, EPS=eps, **tile, **OPTIONS
            )

    def pack(self, x: Tensor, binary: bool = False) -> tuple[Tensor, Tensor]:
        """One pass over x of any floating-point type; who reads the number waits for the GPU."""
        x = x.contiguous()
        R, C = x.shape
        bits = x.new_empty(R, words(C), dtype=torch.int64)
        programs = (-(-R // BITS_ROWS), words(C))
        found = x.new_empty(*programs, 2, dtype=torch.int64)
        with _on(x):
            _kernels("bits").pack[programs](
                x, bits, found, R, C, words(C), BLOCK_R=BITS_ROWS, **OPTIONS
            )
        ones, others = found.sum((0, 1)).unbind()
        if binary:
            torch.ops.aten._assert_async.msg(others == 0, BROKEN_PROMISE)
            return bits, ones
        return bits, torch.where(others == 0, ones, -1)

    def unpack(self, bits: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The inverse of `pack`."""
        R = bits.shape[0]
        x = bits.new_empty(R, channels, dtype=dtype)
        programs = (-(-R // BITS_ROWS), words(channels))
        with _on(bits):
            _kernels("bits").unpack[programs](
                bits.contiguous(), x, R, channels, words(channels), BLOCK_R=BITS_ROWS, **OPTIONS
            )
        return x

    def convolve(
        self,
        shape: Spatial,
        x: Tensor,
        bits: Tensor,
        spikes: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Dense, by PyTorch (cuDNN): a GPU multiplies faster than it looks for spikes."""
        return dense.convolve(shape, x, weight, bias)

    def convolve_backward(
        self,
        shape: Spatial,
        g_y: Tensor,
        x: Tensor | None,
        bits: Tensor | None,
        spikes: Tensor,
        weight: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """Dense, by PyTorch (cuDNN), from the spikes that were kept as bits."""
        return dense.gradients(self, shape, g_y, x, bits, weight, needs)


def scale(kind: int, slope: float) -> float:
    """The factor that a surrogate's derivative has beside its parameter, in full precision."""
    if kind == KINDS[ClippedTanh]:
        return slope / (2 * math.tanh(slope / 2))
    if kind == KINDS[ArcTan]:
        return math.pi / 2 * slope
    return 1 / slope


@cache
def _kernels(of: str) -> Any:
    """The module with the kernels of neurons, norm or bits: the one import of Triton."""
    return import_module(f"rmploss.ops.triton_kernels.{of}")


def _tile(channels: int, elements: int) -> dict[str, int]:
    """The tile of a shape: powers of two, as few idle columns as they allow."""
    columns = min(1 << (channels - 1).bit_length(), CHANNELS, elements)
    return {"BLOCK_R": elements // columns, "BLOCK_C": columns}


def _cut(rows: int, channels: int, elements: int) -> tuple[dict[str, int], tuple[int, int], int]:
    """The tile, the programs down and across, and how many tiles each walks down."""
    tile = _tile(channels, elements)
    down, across = -(-rows // tile["BLOCK_R"]), -(-channels // tile["BLOCK_C"])
    tiles = -(-down // max(1, PROGRAMS // across))
    return tile, (-(-down // tiles), across), tiles


def _unrolled(current: Current, limit: int) -> int:
    """The number of steps where the loop over time is unrolled, else 0."""
    return current.steps if current.steps * current.decay.element_size() <= 4 * limit else 0


def _backward_tile(like: Tensor, steps: int) -> int:
    """The elements of a tile whose u_pre of all steps fits into registers (on Hopper, by ptxas)."""
    words = steps * like.element_size() // 4
    return TILE // (1 if words <= 6 else 2 if words <= 12 else 4)


def _inputs(current: Current) -> tuple[Tensor | None, ...]:
    """What forward and backward read, in the order of the kernels."""
    return tuple(
        _dense(x)
        for x in (
            current.y, current.statistics, current.gain, current.bias, current.residual,
            current.start, current.decay, current.threshold,
        )
    )  # fmt: skip


def _neuron(current: Current, rule: Rule) -> dict[str, Any]:
    """The constants that forward and backward share."""
    residual = current.residual
    return {
        "STATIC": current.is_static,
        "BITS": residual is not None and residual.dtype == torch.int64,
        "RESET": rule.reset,
        "RESET_TO": rule.reset_to,
        "EPS": current.eps,
        "OF_INPUT": rule.of_input,
        "P": rule.p,
    }


def _dense(x: Tensor | None) -> Tensor | None:
    """x itself, or a copy of an expanded or strided one."""
    return None if x is None else x.contiguous()


def _total(partial: Tensor) -> Tensor:
    """The sums `[4, C]` of all programs, added in float64."""
    return partial.sum(0, dtype=torch.float64).to(partial.dtype)


def _on(x: Tensor) -> AbstractContextManager[Any]:
    """Launches go to the GPU of a tensor, which need not be the current one."""
    return torch.cuda.device(x.device) if x.is_cuda else nullcontext()
