"""LIF neurons over time, forward and backward, with the norm in front and the moments."""

# What @triton.jit compiles only looks like Python: to pyright a number is no constexpr there.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl

from rmploss.ops.lif.triton_kernels.equations import (
    HARD,
    SOFT,
    after_reset,
    charge,
    distance,
    distance_slope,
    fire,
    per_channel,
    surrogate_slope,
)


@triton.jit
def _normalization(
    statistics, gain, c, channels, EPS: tl.constexpr, FACTOR: tl.constexpr, dtype: tl.constexpr
):
    """Mean, 1 / sqrt(var + eps) and FACTOR gain times it [1, BLOCK_C]: in float64, rounded once."""
    mean = per_channel(statistics, c, channels, 0.0, dtype)
    k_gain = per_channel(gain, c, channels, 1.0, dtype)
    if FACTOR != 1.0:
        k_gain = (k_gain.to(tl.float64) * FACTOR).to(dtype)
    inverse = tl.full(mean.shape, 1.0, dtype)
    if statistics is not None:
        var = per_channel(statistics + channels, c, channels, 0.0, tl.float64)
        exact = 1 / tl.sqrt(var + EPS)
        k_gain = (k_gain.to(tl.float64) * exact).to(dtype)
        inverse = exact.to(dtype)
    return mean.to(dtype), inverse, k_gain


@triton.jit
def _current(
    y, residual, t, row, c, at, inside, rows, plane, channels, mean, gain, bias,
    STATIC: tl.constexpr, BITS: tl.constexpr,
):  # fmt: skip
    """x(t) = (y(t) - mean) gain + bias + residual(t) of a tile, in the type of the constants."""
    here = t * plane + at
    x = tl.load(y + (at if STATIC else here), mask=inside, other=0.0).to(mean.dtype)
    x = (x - mean) * gain + bias
    if residual is not None:
        if BITS:
            # A tile is at most as wide as a word, and starts where one does or within it: one word
            # for all columns of a row.
            lane = (c % 64).to(tl.int64)[None, :]
            first = tl.program_id(1) * c.shape[0] // 64
            words = (t * rows + row) * ((channels + 63) // 64) + first
            word = tl.load(residual + words, mask=row < rows, other=0)
            x += ((word >> lane) & 1).to(x.dtype)
        else:
            x += tl.load(residual + here, mask=inside, other=0.0).to(x.dtype)
    return x


@triton.jit
def _initial(start, at, inside, SHAPE: tl.constexpr, REST: tl.constexpr, dtype: tl.constexpr):
    """The membrane before the first step: carried, or at rest."""
    if start is None:
        u = tl.full(SHAPE, REST, dtype)
    else:
        u = tl.load(start + at, mask=inside, other=0.0)
    return u


@triton.jit
def _step(
    y, residual, t, row, c, at, inside, rows, plane, channels,
    mean, gain, bias, decay, threshold, u,
    STATIC: tl.constexpr, BITS: tl.constexpr, RESET: tl.constexpr, RESET_TO: tl.constexpr,
):  # fmt: skip
    """x, u_pre and spikes of a step, and u after it: of forward, and once more of backward."""
    x = _current(
        y, residual, t, row, c, at, inside, rows, plane, channels, mean, gain, bias, STATIC, BITS
    )
    pre = charge(u, x, decay)
    o = fire(pre, threshold)
    return x, pre, o, after_reset(pre, o, threshold, RESET, RESET_TO)


@triton.jit
def _forward_step(
    y, residual, spikes, bits, partial, t, steps, tile, row, c, at, inside, rows, plane, channels,
    mean, gain, bias, decay, threshold, u, s_1, s_2, s_3, s_4,
    STATIC: tl.constexpr, BITS: tl.constexpr, RESET: tl.constexpr, RESET_TO: tl.constexpr,
    MOMENTS: tl.constexpr, PER_STEP: tl.constexpr, OF_INPUT: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """One time step of a tile: writes the spikes, returns u and the moments so far.

    PER_STEP: the moments of the step are added to row t of the program's in `partial` instead.
    """
    x, pre, o, u = _step(
        y, residual, t, row, c, at, inside, rows, plane, channels,
        mean, gain, bias, decay, threshold, u, STATIC, BITS, RESET, RESET_TO,
    )  # fmt: skip
    if spikes is not None:
        tl.store(spikes + t * plane + at, o, mask=inside)
    if bits is not None:
        # A tile is at most as wide as a word, and starts where one does. Each lane has a bit of its
        # own: their sum is their union. Lanes beyond the last channel have a potential, too.
        lane = (c % 64).to(tl.int64)[None, :]
        word = tl.sum(tl.where(inside, o, 0.0).to(tl.int64) << lane, axis=1)[:, None]
        at_word = (t * rows + row) * ((channels + 63) // 64) + tl.program_id(1)
        tl.store(bits + at_word, word, mask=row < rows)
    if MOMENTS:
        # Rows beyond the last have a current too: (0 - mean) gain + bias.
        potential = tl.where(inside, x if OF_INPUT else pre, 0.0)
        target = tl.where(inside, fire(x, threshold) if OF_INPUT else o, 0.0)
        q = distance(target - potential, P)
        fired = tl.where(inside, o, 0.0)
        if PER_STEP:
            place = tl.program_id(0).to(tl.int64) * steps + t
            square = potential * potential
            _store_sums(partial, place, potential, square, q, fired, c, channels, tile > 0)
        else:
            s_1 += potential
            s_2 += potential * potential
            s_3 += q
            s_4 += fired
    return u, s_1, s_2, s_3, s_4


@triton.jit
def _store_sum(out, s, inside, is_more):
    """The sum over a tile's rows; is_more: None, or whether it is added to what is there."""
    total = tl.sum(s, axis=0)
    if is_more is not None:
        total += tl.load(out, mask=inside & is_more, other=0.0)
    tl.store(out, total, mask=inside)


@triton.jit
def _store_sums(partial, at, s_1, s_2, s_3, s_4, c, channels, is_more):
    """The sums over a tile's rows, to row `at` of `partial` [.., 4, C]."""
    out = partial + at * 4 * channels + c
    inside = c < channels
    _store_sum(out, s_1, inside, is_more)
    _store_sum(out + channels, s_2, inside, is_more)
    _store_sum(out + 2 * channels, s_3, inside, is_more)
    _store_sum(out + 3 * channels, s_4, inside, is_more)


@triton.jit(do_not_specialize=["steps", "tiles"])
def lif_forward(
    y, statistics, gain, bias, residual, start, decay, threshold, spikes, bits, last, partial,
    steps, rows, channels, tiles,
    STEPS: tl.constexpr, STATIC: tl.constexpr, BITS: tl.constexpr,
    RESET: tl.constexpr, RESET_TO: tl.constexpr, EPS: tl.constexpr, FACTOR: tl.constexpr,
    MOMENTS: tl.constexpr, PER_STEP: tl.constexpr, OF_INPUT: tl.constexpr, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Norm, shortcut, Eqs. 1-3 and the moments; STEPS > 0: the loop over time is unrolled.

    The moments of a program's rows go to `partial` [programs, 4, C], those of each step (PER_STEP),
    which registers cannot hold, to `partial` [programs, T, 4, C], tile by tile.
    """
    dtype = decay.dtype.element_ty
    SHAPE: tl.constexpr = (BLOCK_R, BLOCK_C)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows_64 = tl.cast(rows, tl.int64)
    plane = rows_64 * channels
    k_mean, _, k_gain = _normalization(statistics, gain, c, channels, EPS, FACTOR, dtype)
    k_bias = per_channel(bias, c, channels, 0.0, dtype)
    k_decay = per_channel(decay, c, channels, 0.0, dtype)
    k_threshold = per_channel(threshold, c, channels, 0.0, dtype)
    zero = tl.zeros(SHAPE, dtype)
    s_1, s_2, s_3, s_4 = zero, zero, zero, zero
    for tile in range(tiles):
        first = (tl.program_id(0).to(tl.int64) * tiles + tile) * BLOCK_R
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < rows) & (c < channels)[None, :]
        at = row * channels + c[None, :]
        u = _initial(start, at, inside, SHAPE, RESET_TO if RESET == HARD else 0.0, dtype)
        if STEPS > 0:
            for t in tl.static_range(STEPS):
                u, s_1, s_2, s_3, s_4 = _forward_step(
                    y, residual, spikes, bits, partial, t, steps, tile,
                    row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, s_1, s_2, s_3, s_4,
                    STATIC, BITS, RESET, RESET_TO, MOMENTS, PER_STEP, OF_INPUT, P,
                )  # fmt: skip
        else:
            for t in range(steps):
                u, s_1, s_2, s_3, s_4 = _forward_step(
                    y, residual, spikes, bits, partial, t, steps, tile,
                    row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, s_1, s_2, s_3, s_4,
                    STATIC, BITS, RESET, RESET_TO, MOMENTS, PER_STEP, OF_INPUT, P,
                )  # fmt: skip
        if last is not None:
            tl.store(last + at, u, mask=inside)
        if MOMENTS and PER_STEP:
            # The thread that adds to a sum need not be the one that wrote it.
            tl.debug_barrier()
    if MOMENTS and not PER_STEP:
        place = tl.program_id(0).to(tl.int64)
        _store_sums(partial, place, s_1, s_2, s_3, s_4, c, channels, None)


@triton.jit
def _pulls(g_moments, t, c, channels, dtype: tl.constexpr):
    """The four gradients of row t of moments [.., 4, C], each [1, BLOCK_C]."""
    at = g_moments + t * 4 * channels
    return (
        per_channel(at, c, channels, 0.0, dtype),
        per_channel(at + channels, c, channels, 0.0, dtype),
        per_channel(at + 2 * channels, c, channels, 0.0, dtype),
        per_channel(at + 3 * channels, c, channels, 0.0, dtype),
    )


@triton.jit
def _reverse_step(
    y, residual, g_spikes, g_shortcut, g_means, g_moments, g_current,
    t, row, c, at, at_mean, inside, rows, plane, channels,
    mean, gain, bias, decay, threshold, G_1, G_2, G_3, G_4,
    pre, before, g_u, total, s_1, s_2, s_3, s_4,
    PULL: tl.constexpr, PER_STEP: tl.constexpr, CENTERED: tl.constexpr, CONSTANTS: tl.constexpr,
    STATIC: tl.constexpr, BITS: tl.constexpr,
    RESET: tl.constexpr, DETACH_RESET: tl.constexpr, RESET_TO: tl.constexpr,
    KIND: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, DAMPING: tl.constexpr,
    OF_INPUT: tl.constexpr, DETACH_TARGET: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The recursion of README.md for one step.

    PER_STEP: the gradients of the moments are those of step t in `g_moments`.
    CENTERED, CONSTANTS: whether the sum of g_x (y - mean), and those of decay and threshold, are
    wanted.
    """
    if PULL and PER_STEP:
        G_1, G_2, G_3, G_4 = _pulls(g_moments, t, c, channels, pre.dtype)
    here = t * plane + at
    o = fire(pre, threshold)
    d_o = tl.zeros_like(pre) + G_4
    if g_spikes is not None:
        d_o += tl.load(g_spikes + here, mask=inside, other=0.0).to(pre.dtype)
    if g_shortcut is not None:
        d_o += tl.load(g_shortcut + here, mask=inside, other=0.0).to(pre.dtype)
    if g_means is not None:
        g_mean = tl.load(g_means + t * (plane // 4) + at_mean, mask=inside, other=0.0)
        d_o += 0.25 * g_mean.to(pre.dtype)
    if not DETACH_RESET:
        if RESET == HARD:
            d_o += g_u * (RESET_TO - pre)
        elif RESET == SOFT:
            d_o -= threshold * g_u
        else:
            d_o -= RESET_TO * g_u
    g_pre = g_u
    if RESET == HARD:
        g_pre = g_u * (1 - o)
    if PULL and not OF_INPUT:
        q = G_3 * distance_slope(o - pre, P)
        g_pre += G_1 + 2 * pre * G_2 - q
        if not DETACH_TARGET:
            d_o += q
    g_fire = d_o * surrogate_slope(pre - threshold, KIND, SLOPE, SCALE, DAMPING)
    g_pre += g_fire
    g_x = g_pre
    if PULL and OF_INPUT:
        x = _current(
            y, residual, t, row, c, at, inside, rows, plane, channels, mean, gain, bias,
            STATIC, BITS,
        )  # fmt: skip
        q = G_3 * distance_slope(fire(x, threshold) - x, P)
        g_x += G_1 + 2 * x * G_2 - q
        if not DETACH_TARGET:
            g_target = q * surrogate_slope(x - threshold, KIND, SLOPE, SCALE, DAMPING)
            g_x += g_target
            g_fire += g_target
    # Rows beyond the last have a gradient too, that of the moments.
    g_x = tl.where(inside, g_x, 0.0)
    if STATIC:
        total += g_x
    else:
        tl.store(g_current + here, g_x, mask=inside)
        if CENTERED:
            s_2 += g_x * (tl.load(y + here, mask=inside, other=0.0).to(pre.dtype) - mean)
    s_1 += g_x
    if CONSTANTS:
        s_3 += tl.where(inside, g_pre * before, 0.0)
        g_threshold = g_fire + g_u * o if RESET == SOFT else g_fire
        s_4 -= tl.where(inside, g_threshold, 0.0)
    return decay * g_pre, total, s_1, s_2, s_3, s_4


@triton.jit
def _in_means(row, c, channels, width):
    """Where the mean of the 2x2 square of a pixel lies; row: (b H + i) W + j, H and W even."""
    line = row // width
    return ((line // 2) * (width // 2) + (row - line * width) // 2) * channels + c[None, :]


@triton.jit(do_not_specialize=["steps", "tiles", "width"])
def lif_backward(
    y, statistics, gain, bias, residual, start, decay, threshold,
    g_spikes, g_shortcut, g_means, g_moments, g_last,
    g_current, g_start, partial, scratch,
    steps, rows, channels, tiles, width,
    STEPS: tl.constexpr, STATIC: tl.constexpr, BITS: tl.constexpr,
    RESET: tl.constexpr, DETACH_RESET: tl.constexpr, RESET_TO: tl.constexpr,
    KIND: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, DAMPING: tl.constexpr,
    EPS: tl.constexpr, FACTOR: tl.constexpr, CONSTANTS: tl.constexpr,
    PER_STEP: tl.constexpr, OF_INPUT: tl.constexpr, DETACH_TARGET: tl.constexpr, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The membrane once more, then the reverse loop; STEPS > 0: u_pre stays in registers.

    STEPS = 0 is for many steps, which registers cannot hold: the membrane before each of them goes
    to `scratch` [T, R, C], and u_pre is computed from it once more. `g_current` may be
    of half precision. The gradient of the spikes is the sum of three, each of which may be missing:
    of `g_means` [T, R / 4, C], by 2x2 squares of maps of that width, each pixel gets a quarter.
    """
    dtype = decay.dtype.element_ty
    SHAPE: tl.constexpr = (BLOCK_R, BLOCK_C)
    PULL: tl.constexpr = g_moments is not None
    CENTERED: tl.constexpr = gain is not None
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows_64 = tl.cast(rows, tl.int64)
    plane = rows_64 * channels
    k_mean, inverse, k_gain = _normalization(statistics, gain, c, channels, EPS, FACTOR, dtype)
    k_bias = per_channel(bias, c, channels, 0.0, dtype)
    k_decay = per_channel(decay, c, channels, 0.0, dtype)
    k_threshold = per_channel(threshold, c, channels, 0.0, dtype)
    zero = tl.zeros(SHAPE, dtype)
    G_1, G_2, G_3, G_4 = 0.0, 0.0, 0.0, 0.0
    if PULL and not PER_STEP:
        G_1, G_2, G_3, G_4 = _pulls(g_moments, 0, c, channels, dtype)
    s_1, s_2, s_3, s_4 = zero, zero, zero, zero
    for tile in range(tiles):
        first = (tl.program_id(0).to(tl.int64) * tiles + tile) * BLOCK_R
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < rows) & (c < channels)[None, :]
        at = row * channels + c[None, :]
        at_mean = at if g_means is None else _in_means(row, c, channels, width)
        initial = _initial(start, at, inside, SHAPE, RESET_TO if RESET == HARD else 0.0, dtype)
        u = initial
        g_u = zero if g_last is None else tl.load(g_last + at, mask=inside, other=0.0)
        total = zero
        if STEPS > 0:
            pres = ()
            for t in tl.static_range(STEPS):
                _, pre, _, u = _step(
                    y, residual, t, row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, STATIC, BITS, RESET, RESET_TO,
                )  # fmt: skip
                pres = pres + (pre,)  # noqa: RUF005  Triton has no unpacking
            for back in tl.static_range(STEPS):
                if back + 1 < STEPS:
                    earlier = pres[STEPS - 2 - back]
                    o = fire(earlier, k_threshold)
                    before = after_reset(earlier, o, k_threshold, RESET, RESET_TO)
                else:
                    before = initial
                g_u, total, s_1, s_2, s_3, s_4 = _reverse_step(
                    y, residual, g_spikes, g_shortcut, g_means, g_moments, g_current,
                    STEPS - 1 - back, row, c, at, at_mean, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold,
                    G_1, G_2, G_3, G_4, pres[STEPS - 1 - back], before,
                    g_u, total, s_1, s_2, s_3, s_4,
                    PULL, PER_STEP, CENTERED, CONSTANTS, STATIC, BITS,
                    RESET, DETACH_RESET, RESET_TO, KIND, SLOPE, SCALE, DAMPING,
                    OF_INPUT, DETACH_TARGET, P,
                )  # fmt: skip
        else:
            for t in range(steps):
                tl.store(scratch + t * plane + at, u, mask=inside)
                _, _, _, u = _step(
                    y, residual, t, row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, STATIC, BITS, RESET, RESET_TO,
                )  # fmt: skip
            # The thread that reads an element need not be the one that wrote it.
            tl.debug_barrier()
            for back in range(steps):
                t = steps - 1 - back
                before = tl.load(scratch + t * plane + at, mask=inside, other=0.0)
                _, pre, _, _ = _step(
                    y, residual, t, row, c, at, inside, rows_64, plane, channels, k_mean, k_gain,
                    k_bias, k_decay, k_threshold, before, STATIC, BITS, RESET, RESET_TO,
                )  # fmt: skip
                g_u, total, s_1, s_2, s_3, s_4 = _reverse_step(
                    y, residual, g_spikes, g_shortcut, g_means, g_moments, g_current,
                    t, row, c, at, at_mean, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold,
                    G_1, G_2, G_3, G_4, pre, before, g_u, total, s_1, s_2, s_3, s_4,
                    PULL, PER_STEP, CENTERED, CONSTANTS, STATIC, BITS,
                    RESET, DETACH_RESET, RESET_TO, KIND, SLOPE, SCALE, DAMPING,
                    OF_INPUT, DETACH_TARGET, P,
                )  # fmt: skip
        if STATIC:
            tl.store(g_current + at, total, mask=inside)
            if CENTERED:
                s_2 += total * (tl.load(y + at, mask=inside, other=0.0).to(dtype) - k_mean)
        if g_start is not None:
            tl.store(g_start + at, g_u, mask=inside)
    place = tl.program_id(0).to(tl.int64)
    s_2 *= inverse * FACTOR
    _store_sums(partial, place, s_1, s_2, s_3, s_4, c, channels, None)
