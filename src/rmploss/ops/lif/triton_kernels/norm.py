"""Statistics of tdBN and its gradient (Eqs. 6-7)."""

# What @triton.jit compiles only looks like Python: to pyright a number is no constexpr there.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl

from rmploss.ops.lif.triton_kernels.equations import per_channel


@triton.jit(do_not_specialize=["tiles"])
def statistics(
    y, partial, rows, channels, tiles, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Count, mean and sum of squares about it, of a program's rows: float64 [programs, 3, C].

    Every lane of the tile runs Welford's recursion on the distance to its own first value, which
    is as small as the spread of y, whatever its mean; the lanes are combined in float64, as
    distances to the first row of all.
    """
    given = y.dtype.element_ty
    dtype = tl.float32 if given.primitive_bitwidth == 16 else given
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    count = tl.zeros((BLOCK_R, BLOCK_C), dtype)
    shift, mean, square = count, count, count
    for tile in range(tiles):
        first = (tl.program_id(0).to(tl.int64) * tiles + tile) * BLOCK_R
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < rows) & (c < channels)[None, :]
        value = tl.load(y + row * channels + c[None, :], mask=inside, other=0.0).to(dtype)
        shift = tl.where(tile == 0, value, shift)
        off = value - shift
        count += inside.to(dtype)
        delta = tl.where(inside, off - mean, 0.0)
        mean += delta / tl.maximum(count, 1.0)
        square += delta * (off - mean)
    count_64 = count.to(tl.float64)
    origin = tl.load(y + c, mask=c < channels, other=0.0).to(tl.float64)
    mean_64 = mean.to(tl.float64) + (shift.to(tl.float64) - origin[None, :])
    size = tl.sum(count_64, axis=0)
    center = tl.sum(count_64 * mean_64, axis=0) / tl.maximum(size, 1.0)
    apart = mean_64 - center[None, :]
    spread = tl.sum(square.to(tl.float64) + count_64 * apart * apart, axis=0)
    out = partial + tl.program_id(0).to(tl.int64) * 3 * channels + c
    tl.store(out, size, mask=c < channels)
    tl.store(out + channels, center, mask=c < channels)
    tl.store(out + 2 * channels, spread, mask=c < channels)


@triton.jit
def combine(
    y, partial, out, programs, channels, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr
):  # fmt: skip
    """Mean, biased variance and count, float64 [3, C], of what `statistics` left (Chan's rule)."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mine = c < channels
    size = tl.zeros((BLOCK_R, BLOCK_C), tl.float64)
    offset = tl.zeros((BLOCK_R, BLOCK_C), tl.float64)
    for first in range(0, programs, BLOCK_R):
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < programs) & mine[None, :]
        at = partial + row * 3 * channels + c[None, :]
        n = tl.load(at, mask=inside, other=0.0)
        size += n
        offset += n * tl.load(at + channels, mask=inside, other=0.0)
    count = tl.maximum(tl.sum(size, axis=0), 1.0)[None, :]
    center = tl.sum(offset, axis=0)[None, :] / count
    square = tl.zeros((BLOCK_R, BLOCK_C), tl.float64)
    for first in range(0, programs, BLOCK_R):
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < programs) & mine[None, :]
        at = partial + row * 3 * channels + c[None, :]
        n = tl.load(at, mask=inside, other=0.0)
        apart = tl.load(at + channels, mask=inside, other=0.0) - center
        square += tl.load(at + 2 * channels, mask=inside, other=0.0) + n * apart * apart
    var = tl.sum(square, axis=0)[None, :] / count
    to = out + c[None, :]
    origin = tl.load(y + c, mask=mine, other=0.0).to(tl.float64)[None, :]
    tl.store(to, origin + center, mask=mine[None, :])
    tl.store(to + channels, var, mask=mine[None, :])
    tl.store(to + 2 * channels, count, mask=mine[None, :])


@triton.jit(do_not_specialize=["tiles"])
def norm_gradient(
    g_x, y, statistics, weight, sums, out, rows, channels, tiles,
    EPS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """gain g_x + shift + slope (y - mean); `out` may be `g_x`, since every element is its own.

    gain = weight inverse, shift = -gain S_1 / n, slope = -gain inverse S_2 / n are computed in
    float64 and rounded once.
    """
    dtype = g_x.dtype.element_ty
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mean = per_channel(statistics, c, channels, 0.0, tl.float64)
    var = per_channel(statistics + channels, c, channels, 0.0, tl.float64)
    count = tl.maximum(per_channel(statistics + 2 * channels, c, channels, 0.0, tl.float64), 1.0)
    s_1 = per_channel(sums, c, channels, 0.0, tl.float64)
    s_2 = per_channel(sums + channels, c, channels, 0.0, tl.float64)
    inverse = 1 / tl.sqrt(var + EPS)
    gain = per_channel(weight, c, channels, 0.0, dtype).to(tl.float64) * inverse
    shift = (-gain * s_1 / count).to(dtype)
    slope = (-gain * inverse * s_2 / count).to(dtype)
    k_gain, k_mean = gain.to(dtype), mean.to(dtype)
    for tile in range(tiles):
        first = (tl.program_id(0).to(tl.int64) * tiles + tile) * BLOCK_R
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < rows) & (c < channels)[None, :]
        at = row * channels + c[None, :]
        g = tl.load(g_x + at, mask=inside, other=0.0)
        value = tl.load(y + at, mask=inside, other=0.0).to(dtype)
        tl.store(out + at, k_gain * g + shift + slope * (value - k_mean), mask=inside)
