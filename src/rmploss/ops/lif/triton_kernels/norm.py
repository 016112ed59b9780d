"""Statistics of tdBN and its gradient (Eqs. 6-7)."""

# What @triton.jit compiles only looks like Python: to pyright a number is no constexpr there.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAssignmentType=false
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

from rmploss.ops.lif.triton_kernels.equations import per_channel


@triton.jit(do_not_specialize=["tiles"])
def statistics(
    y, partial, rows, channels, tiles,
    LOADS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Of a program's rows, mean minus y[0] and sum of squares about it: float64 [programs, 2, C].

    A lane sums d and d^2 of d = y - shift in the type it computes in; the shift is the mean of the
    program's first tile, so that nothing cancels whatever the mean of y. Lanes are added in
    float64. A program walks down `tiles` times LOADS tiles, which are asked for together.
    """
    given = y.dtype.element_ty
    dtype = tl.float32 if given.primitive_bitwidth == 16 else given
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    top = tl.program_id(0).to(tl.int64) * tiles * LOADS * BLOCK_R
    size = tl.minimum(rows - top, tl.cast(tiles, tl.int64) * LOADS * BLOCK_R).to(tl.float64)
    origin = tl.load(y + c, mask=c < channels, other=0.0).to(dtype)[None, :]
    row = (top + tl.arange(0, BLOCK_R))[:, None]
    inside = (row < rows) & (c < channels)[None, :]
    value = tl.load(y + row * channels + c[None, :], mask=inside, other=0.0).to(dtype)
    tall = tl.minimum(rows - top, BLOCK_R).to(dtype)
    apart = tl.sum(tl.where(inside, value - origin, 0.0), axis=0)[None, :] / tall
    shift = origin + apart
    s_1 = tl.zeros((BLOCK_R, BLOCK_C), dtype)
    s_2 = tl.zeros((BLOCK_R, BLOCK_C), dtype)
    for tile in range(tiles):
        values = ()
        for part in tl.static_range(LOADS):
            row = (top + (tile * LOADS + part) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
            inside = (row < rows) & (c < channels)[None, :]
            at = row * channels + c[None, :]
            values = values + (tl.load(y + at, mask=inside, other=0.0),)  # noqa: RUF005
        for part in tl.static_range(LOADS):
            row = (top + (tile * LOADS + part) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
            inside = (row < rows) & (c < channels)[None, :]
            d = tl.where(inside, values[part].to(dtype) - shift, 0.0)
            s_1 += d
            s_2 += d * d
    total = tl.sum(s_1.to(tl.float64), axis=0)
    square = tl.sum(s_2.to(tl.float64), axis=0)
    # shift - origin is exact where the two are close, and as large as the spread where not.
    moved = tl.sum((shift - origin).to(tl.float64), axis=0)
    out = partial + tl.program_id(0).to(tl.int64) * 2 * channels + c
    tl.store(out, moved + total / size, mask=c < channels)
    tl.store(out + channels, tl.maximum(square - total * total / size, 0.0), mask=c < channels)


@triton.jit(do_not_specialize=["programs", "rows", "height", "values"])
def combine(
    y, partial, running_mean, running_var, out, programs, rows, channels, height, values,
    MOMENTUM: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Mean, biased variance and count, float64 [3, C], of what `statistics` left (Chan's rule).

    y: its first row; height: the rows of a program, but for the last; running_mean, running_var
    [C] or None: take the share MOMENTUM of them, the variance as the unbiased one of that
    many values.
    """
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mine = (c < channels)[None, :]
    total = tl.cast(rows, tl.float64)
    offset = tl.zeros((BLOCK_R, BLOCK_C), tl.float64)
    for first in range(0, programs, BLOCK_R):
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < programs) & mine
        n = tl.minimum(rows - row.to(tl.int64) * height, height).to(tl.float64)
        mean = tl.load(partial + row * 2 * channels + c[None, :], mask=inside, other=0.0)
        offset += tl.where(inside, n * mean, 0.0)
    center = tl.sum(offset, axis=0)[None, :] / total
    square = tl.zeros((BLOCK_R, BLOCK_C), tl.float64)
    for first in range(0, programs, BLOCK_R):
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < programs) & mine
        n = tl.minimum(rows - row.to(tl.int64) * height, height).to(tl.float64)
        at = partial + row * 2 * channels + c[None, :]
        apart = tl.load(at, mask=inside, other=0.0) - center
        own = tl.load(at + channels, mask=inside, other=0.0)
        square += tl.where(inside, own + n * apart * apart, 0.0)
    var = tl.sum(square, axis=0)[None, :] / total
    origin = tl.load(y + c, mask=c < channels, other=0.0).to(tl.float64)[None, :]
    mean = origin + center
    to = out + c[None, :]
    tl.store(to, mean, mask=mine)
    tl.store(to + channels, var, mask=mine)
    tl.store(to + 2 * channels, tl.zeros_like(var) + total, mask=mine)
    if running_mean is not None:
        number = tl.cast(values, tl.float64)
        unbiased = var * (number / tl.maximum(number - 1, 1.0))
        at_mean, at_var = running_mean + c[None, :], running_var + c[None, :]
        old_mean = tl.load(at_mean, mask=mine, other=0.0).to(tl.float64)
        old_var = tl.load(at_var, mask=mine, other=0.0).to(tl.float64)
        tl.store(at_mean, old_mean + MOMENTUM * (mean - old_mean), mask=mine)
        tl.store(at_var, old_var + MOMENTUM * (unbiased - old_var), mask=mine)


@triton.jit(do_not_specialize=["programs"])
def fold(partial, out, programs, width, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr):
    """The sums [width] over programs of `partial` [programs, width], added in float64."""
    c = tl.program_id(0) * BLOCK_C + tl.arange(0, BLOCK_C)
    mine = (c < width)[None, :]
    total = tl.zeros((BLOCK_R, BLOCK_C), tl.float64)
    for first in range(0, programs, BLOCK_R):
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < programs) & mine
        total += tl.load(partial + row * width + c[None, :], mask=inside, other=0.0).to(tl.float64)
    tl.store(out + c, tl.sum(total, axis=0), mask=c < width)


@triton.jit(do_not_specialize=["tiles"])
def norm_gradient(
    g_x, y, statistics, weight, sums, out, rows, channels, tiles,
    EPS: tl.constexpr, FACTOR: tl.constexpr, LOADS: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """gain g_x + shift + slope (y - mean); `out` may be `g_x`, since every element is its own.

    With inverse = 1 / sqrt(var + eps), gain = FACTOR weight inverse, shift = -gain S_1 / n and
    slope = -gain inverse S_2 / n are computed in float64 and rounded once; `sums`, the gradients
    of bias and weight, are S_1 and FACTOR S_2.
    """
    dtype = weight.dtype.element_ty
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mean = per_channel(statistics, c, channels, 0.0, tl.float64)
    var = per_channel(statistics + channels, c, channels, 0.0, tl.float64)
    count = tl.maximum(per_channel(statistics + 2 * channels, c, channels, 0.0, tl.float64), 1.0)
    s_1 = per_channel(sums, c, channels, 0.0, tl.float64).to(tl.float64)
    s_2 = per_channel(sums + channels, c, channels, 0.0, tl.float64).to(tl.float64) / FACTOR
    inverse = 1 / tl.sqrt(var + EPS)
    gain = per_channel(weight, c, channels, 0.0, dtype).to(tl.float64) * FACTOR * inverse
    shift = (-gain * s_1 / count).to(dtype)
    slope = (-gain * inverse * s_2 / count).to(dtype)
    k_gain, k_mean = gain.to(dtype), mean.to(dtype)
    top = tl.program_id(0).to(tl.int64) * tiles * LOADS * BLOCK_R
    for tile in range(tiles):
        pairs = ()
        for part in tl.static_range(LOADS):
            row = (top + (tile * LOADS + part) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
            inside = (row < rows) & (c < channels)[None, :]
            at = row * channels + c[None, :]
            g = tl.load(g_x + at, mask=inside, other=0.0)
            pairs = pairs + (g, tl.load(y + at, mask=inside, other=0.0))  # noqa: RUF005
        for part in tl.static_range(LOADS):
            row = (top + (tile * LOADS + part) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
            inside = (row < rows) & (c < channels)[None, :]
            g, value = pairs[2 * part].to(dtype), pairs[2 * part + 1].to(dtype)
            found = k_gain * g + shift + slope * (value - k_mean)
            tl.store(out + row * channels + c[None, :], found, mask=inside)
