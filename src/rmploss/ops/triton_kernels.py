"""The GPU kernels behind triton.py: neurons over time, statistics, bits. Imports Triton.

A program owns a tile [BLOCK_R, BLOCK_C] of rows x channels; channels are the fast axis, so that
loads are coalesced, and it walks `tiles` tiles one below the other, adding up its sums over rows in
registers. Sums leave a program once, into a row of their own: no atomics, the same bits every time.

Backward must see the spikes of forward, or the reset and its gradient disagree. It computes the
membrane once more by the same functions (`_current`, `_charge`, `_after_reset`), and every kernel
is launched with `enable_fp_fusion=False`: each product and each sum is then rounded on its own, in
whatever kernel the compiler finds it, and never contracted to a * b + c with one rounding.

Python's numbers would reach a kernel as float32. What is not a tensor is therefore a `constexpr`,
which takes the type of what it meets; a neuron's constants do not change during a run.
"""

# What @triton.jit compiles only looks like Python: to pyright a number is no constexpr there.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl

from rmploss import surrogate
from rmploss.ops import rule

CLIPPED_TANH = tl.constexpr(rule.KINDS[surrogate.ClippedTanh])
RECTANGLE = tl.constexpr(rule.KINDS[surrogate.Rectangle])
TRIANGLE = tl.constexpr(rule.KINDS[surrogate.Triangle])
SIGMOID = tl.constexpr(rule.KINDS[surrogate.Sigmoid])
HARD, SOFT = tl.constexpr(rule.HARD), tl.constexpr(rule.SOFT)


# Neurons -----------------------------------------------------------------------------------------


@triton.jit
def _per_channel(values, c, channels, DEFAULT: tl.constexpr, dtype: tl.constexpr):
    """One number per column [1, BLOCK_C] of `values` [C], or the default of what is not there."""
    if values is None:
        found = tl.full(c.shape, DEFAULT, dtype)
    else:
        found = tl.load(values + c, mask=c < channels, other=0.0)
    return found[None, :]


@triton.jit
def _normalization(statistics, gain, c, channels, EPS: tl.constexpr, dtype: tl.constexpr):
    """Mean, 1 / sqrt(var + eps) and gain times it [1, BLOCK_C]: from float64, rounded once."""
    mean = _per_channel(statistics, c, channels, 0.0, dtype)
    k_gain = _per_channel(gain, c, channels, 1.0, dtype)
    inverse = tl.full(mean.shape, 1.0, dtype)
    if statistics is not None:
        var = _per_channel(statistics + channels, c, channels, 0.0, tl.float64)
        exact = 1 / tl.sqrt(var + EPS)
        k_gain = (k_gain.to(tl.float64) * exact).to(dtype)
        inverse = exact.to(dtype)
    return mean.to(dtype), inverse, k_gain


@triton.jit
def _current(y, residual, at_y, at, bit_row, c, channels, inside, mean, gain, bias, BITS):
    """x(t) = (y(t) - mean) gain + bias + residual(t) of a tile, in the type of the constants."""
    x = tl.load(y + at_y, mask=inside, other=0.0).to(mean.dtype)
    x = (x - mean) * gain + bias
    if residual is not None:
        if BITS:
            lane = c.to(tl.int64)[None, :]
            word = tl.load(
                residual + bit_row * ((channels + 63) // 64) + lane // 64, mask=inside, other=0
            )
            x += ((word >> (lane % 64)) & 1).to(x.dtype)
        else:
            x += tl.load(residual + at, mask=inside, other=0.0).to(x.dtype)
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
def _charge(u, x, decay):
    """u_pre (Eq. 1)."""
    return decay * u + x


@triton.jit
def _fire(potential, threshold):
    """The spikes 0 or 1 of a potential (Eq. 2)."""
    return (potential >= threshold).to(potential.dtype)


@triton.jit
def _after_reset(pre, o, threshold, RESET: tl.constexpr, RESET_TO: tl.constexpr):
    """u after the reset (Eq. 3)."""
    if RESET == HARD:
        u = pre * (1 - o) + RESET_TO * o
    elif RESET == SOFT:
        u = pre - threshold * o
    else:
        u = pre - RESET_TO * o
    return u


@triton.jit
def _power(a, P: tl.constexpr):
    """a^P of a >= 0, 0 at 0 for every P."""
    base = tl.where(a == 0, 1.0, a)
    return tl.where(a == 0, 0.0, tl.exp2(P * tl.log2(base)))


@triton.jit
def _distance(d, P: tl.constexpr):
    """|d|^P (Eq. 9)."""
    if P == 2:
        q = d * d
    elif P == 1:
        q = tl.abs(d)
    else:
        q = _power(tl.abs(d), P)
    return q


@triton.jit
def _distance_slope(d, P: tl.constexpr):
    """P |d|^(P-1) sign(d); 0 at d = 0 for every P."""
    sign = (d > 0).to(d.dtype) - (d < 0).to(d.dtype)
    if P == 2:
        slope = 2 * d
    elif P == 1:
        slope = sign
    else:
        slope = P * sign * _power(tl.abs(d), P - 1)
    return slope


@triton.jit
def _surrogate(
    v, KIND: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, DAMPING: tl.constexpr
):
    """phi'(v) as in rmploss/surrogate.py; SCALE is what `triton.scale` makes of the slope."""
    a = tl.abs(v)
    if KIND == CLIPPED_TANH:
        # 1 - tanh(z)^2 = 4 e / (1 + e)^2 with e = exp(-2 |z|): no cancellation.
        e = tl.exp(a * (-2 * SLOPE))
        slope = tl.where(a > 0.5, 0.0, 4 * SCALE * e / ((1 + e) * (1 + e)))  # NaN stays NaN
    elif KIND == RECTANGLE:
        slope = tl.where(a < SLOPE / 2, SCALE, 0.0).to(v.dtype)
    elif KIND == TRIANGLE:
        d = 1 - a * SCALE
        slope = tl.where(d < 0, 0.0, d * (SCALE * DAMPING))
    elif KIND == SIGMOID:
        e = tl.exp(a * -SLOPE)
        slope = SLOPE * e / ((1 + e) * (1 + e))
    else:
        z = v * SCALE
        slope = SLOPE / 2 / (1 + z * z)
    return slope


@triton.jit
def _forward_step(
    y, residual, spikes, t, row, c, at, inside, rows, plane, channels,
    mean, gain, bias, decay, threshold, u, s_1, s_2, s_3, s_4,
    STATIC: tl.constexpr, BITS: tl.constexpr, RESET: tl.constexpr, RESET_TO: tl.constexpr,
    MOMENTS: tl.constexpr, OF_INPUT: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """One time step of a tile: the spikes to memory, u and the moments so far returned."""
    here = t * plane + at
    x = _current(
        y, residual, at if STATIC else here, here, t * rows + row, c, channels, inside,
        mean, gain, bias, BITS,
    )  # fmt: skip
    pre = _charge(u, x, decay)
    o = _fire(pre, threshold)
    tl.store(spikes + here, o, mask=inside)
    if MOMENTS:
        # Rows beyond the last have a current too: (0 - mean) gain + bias.
        potential = tl.where(inside, x if OF_INPUT else pre, 0.0)
        target = tl.where(inside, _fire(x, threshold) if OF_INPUT else o, 0.0)
        s_1 += potential
        s_2 += potential * potential
        s_3 += _distance(target - potential, P)
        s_4 += tl.where(inside, o, 0.0)
    return _after_reset(pre, o, threshold, RESET, RESET_TO), s_1, s_2, s_3, s_4


@triton.jit
def _store_sums(partial, s_1, s_2, s_3, s_4, c, channels):
    """The sums over a program's rows, to its row of `partial` [programs, 4, C]."""
    out = partial + tl.program_id(0).to(tl.int64) * 4 * channels + c
    inside = c < channels
    tl.store(out, tl.sum(s_1, axis=0), mask=inside)
    tl.store(out + channels, tl.sum(s_2, axis=0), mask=inside)
    tl.store(out + 2 * channels, tl.sum(s_3, axis=0), mask=inside)
    tl.store(out + 3 * channels, tl.sum(s_4, axis=0), mask=inside)


@triton.jit(do_not_specialize=["steps", "tiles"])
def lif_forward(
    y, statistics, gain, bias, residual, start, decay, threshold, spikes, last, partial,
    steps, rows, channels, tiles,
    STEPS: tl.constexpr, STATIC: tl.constexpr, BITS: tl.constexpr,
    RESET: tl.constexpr, RESET_TO: tl.constexpr, EPS: tl.constexpr,
    MOMENTS: tl.constexpr, OF_INPUT: tl.constexpr, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Norm, shortcut, Eqs. 1-3 and the moments; STEPS > 0: the loop over time is unrolled."""
    dtype = decay.dtype.element_ty
    SHAPE: tl.constexpr = (BLOCK_R, BLOCK_C)
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows_64 = tl.cast(rows, tl.int64)
    plane = rows_64 * channels
    k_mean, _, k_gain = _normalization(statistics, gain, c, channels, EPS, dtype)
    k_bias = _per_channel(bias, c, channels, 0.0, dtype)
    k_decay = _per_channel(decay, c, channels, 0.0, dtype)
    k_threshold = _per_channel(threshold, c, channels, 0.0, dtype)
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
                    y, residual, spikes, t, row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, s_1, s_2, s_3, s_4,
                    STATIC, BITS, RESET, RESET_TO, MOMENTS, OF_INPUT, P,
                )  # fmt: skip
        else:
            for t in range(steps):
                u, s_1, s_2, s_3, s_4 = _forward_step(
                    y, residual, spikes, t, row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, s_1, s_2, s_3, s_4,
                    STATIC, BITS, RESET, RESET_TO, MOMENTS, OF_INPUT, P,
                )  # fmt: skip
        tl.store(last + at, u, mask=inside)
    if MOMENTS:
        _store_sums(partial, s_1, s_2, s_3, s_4, c, channels)


@triton.jit
def _recharge(
    y, residual, t, row, c, at, inside, rows, plane, channels,
    mean, gain, bias, decay, threshold, u,
    STATIC: tl.constexpr, BITS: tl.constexpr, RESET: tl.constexpr, RESET_TO: tl.constexpr,
):  # fmt: skip
    """u_pre of a step and the membrane after it, as forward had them."""
    here = t * plane + at
    x = _current(
        y, residual, at if STATIC else here, here, t * rows + row, c, channels, inside,
        mean, gain, bias, BITS,
    )  # fmt: skip
    pre = _charge(u, x, decay)
    return pre, _after_reset(pre, _fire(pre, threshold), threshold, RESET, RESET_TO)


@triton.jit
def _reverse_step(
    y, residual, g_spikes, g_current, t, row, c, at, inside, rows, plane, channels,
    mean, gain, bias, decay, threshold, G_1, G_2, G_3, G_4,
    pre, before, g_u, total, s_1, s_2, s_3, s_4,
    PULL: tl.constexpr, CENTERED: tl.constexpr, STATIC: tl.constexpr, BITS: tl.constexpr,
    RESET: tl.constexpr, DETACH_RESET: tl.constexpr, RESET_TO: tl.constexpr,
    KIND: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, DAMPING: tl.constexpr,
    OF_INPUT: tl.constexpr, DETACH_TARGET: tl.constexpr, P: tl.constexpr,
):  # fmt: skip
    """The recursion of README.md for one step; CENTERED: the sum of g_x (y - mean) is wanted."""
    here = t * plane + at
    o = _fire(pre, threshold)
    d_o = tl.zeros_like(pre) + G_4
    if g_spikes is not None:
        d_o += tl.load(g_spikes + here, mask=inside, other=0.0).to(pre.dtype)
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
        q = G_3 * _distance_slope(o - pre, P)
        g_pre += G_1 + 2 * pre * G_2 - q
        if not DETACH_TARGET:
            d_o += q
    g_fire = d_o * _surrogate(pre - threshold, KIND, SLOPE, SCALE, DAMPING)
    g_pre += g_fire
    g_x = g_pre
    if PULL and OF_INPUT:
        x = _current(
            y, residual, at if STATIC else here, here, t * rows + row, c, channels, inside,
            mean, gain, bias, BITS,
        )  # fmt: skip
        q = G_3 * _distance_slope(_fire(x, threshold) - x, P)
        g_x += G_1 + 2 * x * G_2 - q
        if not DETACH_TARGET:
            g_target = q * _surrogate(x - threshold, KIND, SLOPE, SCALE, DAMPING)
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
    s_3 += tl.where(inside, g_pre * before, 0.0)
    g_threshold = g_fire + g_u * o if RESET == SOFT else g_fire
    s_4 -= tl.where(inside, g_threshold, 0.0)
    return decay * g_pre, total, s_1, s_2, s_3, s_4


@triton.jit(do_not_specialize=["steps", "tiles"])
def lif_backward(
    y, statistics, gain, bias, residual, start, decay, threshold, g_spikes, g_moments, g_last,
    g_current, g_start, partial, scratch,
    steps, rows, channels, tiles,
    STEPS: tl.constexpr, STATIC: tl.constexpr, BITS: tl.constexpr,
    RESET: tl.constexpr, DETACH_RESET: tl.constexpr, RESET_TO: tl.constexpr,
    KIND: tl.constexpr, SLOPE: tl.constexpr, SCALE: tl.constexpr, DAMPING: tl.constexpr,
    EPS: tl.constexpr, OF_INPUT: tl.constexpr, DETACH_TARGET: tl.constexpr, P: tl.constexpr,
    BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """The membrane once more, then the reverse loop; STEPS > 0: u_pre stays in registers.

    STEPS = 0 is for many steps, which registers cannot hold: the membrane before each of them goes
    to `scratch` [T, R, C], and u_pre is computed from it once more.
    """
    dtype = decay.dtype.element_ty
    SHAPE: tl.constexpr = (BLOCK_R, BLOCK_C)
    PULL: tl.constexpr = g_moments is not None
    CENTERED: tl.constexpr = gain is not None
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    rows_64 = tl.cast(rows, tl.int64)
    plane = rows_64 * channels
    k_mean, inverse, k_gain = _normalization(statistics, gain, c, channels, EPS, dtype)
    k_bias = _per_channel(bias, c, channels, 0.0, dtype)
    k_decay = _per_channel(decay, c, channels, 0.0, dtype)
    k_threshold = _per_channel(threshold, c, channels, 0.0, dtype)
    zero = tl.zeros(SHAPE, dtype)
    G_1, G_2, G_3, G_4 = 0.0, 0.0, 0.0, 0.0
    if PULL:
        G_1 = _per_channel(g_moments, c, channels, 0.0, dtype)
        G_2 = _per_channel(g_moments + channels, c, channels, 0.0, dtype)
        G_3 = _per_channel(g_moments + 2 * channels, c, channels, 0.0, dtype)
        G_4 = _per_channel(g_moments + 3 * channels, c, channels, 0.0, dtype)
    s_1, s_2, s_3, s_4 = zero, zero, zero, zero
    for tile in range(tiles):
        first = (tl.program_id(0).to(tl.int64) * tiles + tile) * BLOCK_R
        row = (first + tl.arange(0, BLOCK_R))[:, None]
        inside = (row < rows) & (c < channels)[None, :]
        at = row * channels + c[None, :]
        initial = _initial(start, at, inside, SHAPE, RESET_TO if RESET == HARD else 0.0, dtype)
        u = initial
        g_u = zero if g_last is None else tl.load(g_last + at, mask=inside, other=0.0)
        total = zero
        if STEPS > 0:
            pres = ()
            for t in tl.static_range(STEPS):
                pre, u = _recharge(
                    y, residual, t, row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, STATIC, BITS, RESET, RESET_TO,
                )  # fmt: skip
                pres = pres + (pre,)  # noqa: RUF005  Triton has no unpacking
            for back in tl.static_range(STEPS):
                if back + 1 < STEPS:
                    earlier = pres[STEPS - 2 - back]
                    o = _fire(earlier, k_threshold)
                    before = _after_reset(earlier, o, k_threshold, RESET, RESET_TO)
                else:
                    before = initial
                g_u, total, s_1, s_2, s_3, s_4 = _reverse_step(
                    y, residual, g_spikes, g_current, STEPS - 1 - back, row, c, at, inside,
                    rows_64, plane, channels, k_mean, k_gain, k_bias, k_decay, k_threshold,
                    G_1, G_2, G_3, G_4, pres[STEPS - 1 - back], before,
                    g_u, total, s_1, s_2, s_3, s_4,
                    PULL, CENTERED, STATIC, BITS, RESET, DETACH_RESET, RESET_TO,
                    KIND, SLOPE, SCALE, DAMPING, OF_INPUT, DETACH_TARGET, P,
                )  # fmt: skip
        else:
            for t in range(steps):
                tl.store(scratch + t * plane + at, u, mask=inside)
                _, u = _recharge(
                    y, residual, t, row, c, at, inside, rows_64, plane, channels,
                    k_mean, k_gain, k_bias, k_decay, k_threshold, u, STATIC, BITS, RESET, RESET_TO,
                )  # fmt: skip
            # The thread that reads an element need not be the one that wrote it.
            tl.debug_barrier()
            for back in range(steps):
                t = steps - 1 - back
                before = tl.load(scratch + t * plane + at, mask=inside, other=0.0)
                pre, _ = _recharge(
                    y, residual, t, row, c, at, inside, rows_64, plane, channels, k_mean, k_gain,
                    k_bias, k_decay, k_threshold, before, STATIC, BITS, RESET, RESET_TO,
                )  # fmt: skip
                g_u, total, s_1, s_2, s_3, s_4 = _reverse_step(
                    y, residual, g_spikes, g_current, t, row, c, at, inside,
                    rows_64, plane, channels, k_mean, k_gain, k_bias, k_decay, k_threshold,
                    G_1, G_2, G_3, G_4, pre, before, g_u, total, s_1, s_2, s_3, s_4,
                    PULL, CENTERED, STATIC, BITS, RESET, DETACH_RESET, RESET_TO,
                    KIND, SLOPE, SCALE, DAMPING, OF_INPUT, DETACH_TARGET, P,
                )  # fmt: skip
        if STATIC:
            tl.store(g_current + at, total, mask=inside)
            if CENTERED:
                s_2 += total * (tl.load(y + at, mask=inside, other=0.0).to(dtype) - k_mean)
        tl.store(g_start + at, g_u, mask=inside)
    _store_sums(partial, s_1, s_2 * inverse, s_3, s_4, c, channels)


# Norm --------------------------------------------------------------------------------------------


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


@triton.jit
def norm_gradient(
    g_x, y, statistics, weight, sums, out, rows, channels,
    EPS: tl.constexpr, BLOCK_R: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """gain g_x + shift + slope (y - mean); `out` may be `g_x`, since every element is its own.

    gain = weight inverse, shift = -gain S_1 / n, slope = -gain inverse S_2 / n are computed in
    float64 and rounded once.
    """
    dtype = g_x.dtype.element_ty
    c = tl.program_id(1) * BLOCK_C + tl.arange(0, BLOCK_C)
    mean = _per_channel(statistics, c, channels, 0.0, tl.float64)
    var = _per_channel(statistics + channels, c, channels, 0.0, tl.float64)
    count = tl.maximum(_per_channel(statistics + 2 * channels, c, channels, 0.0, tl.float64), 1.0)
    s_1 = _per_channel(sums, c, channels, 0.0, tl.float64)
    s_2 = _per_channel(sums + channels, c, channels, 0.0, tl.float64)
    inverse = 1 / tl.sqrt(var + EPS)
    gain = _per_channel(weight, c, channels, 0.0, dtype).to(tl.float64) * inverse
    shift = (-gain * s_1 / count).to(dtype)
    slope = (-gain * inverse * s_2 / count).to(dtype)
    row = (tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R))[:, None]
    inside = (row < rows) & (c < channels)[None, :]
    at = row * channels + c[None, :]
    g = tl.load(g_x + at, mask=inside, other=0.0)
    value = tl.load(y + at, mask=inside, other=0.0).to(dtype)
    tl.store(out + at, gain.to(dtype) * g + shift + slope * (value - mean.to(dtype)), mask=inside)


# Bits --------------------------------------------------------------------------------------------


@triton.jit
def pack(x, bits, found, rows, channels, words, BLOCK_R: tl.constexpr):
    """Bits of BLOCK_R rows of one word; `found` [programs, 2]: how many 1, how many neither."""
    lane = tl.arange(0, 64)
    c = tl.program_id(1) * 64 + lane
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = (row < rows)[:, None] & (c < channels)[None, :]
    value = tl.load(x + row[:, None] * channels + c[None, :], mask=inside, other=0.0)
    if value.dtype.primitive_bitwidth == 16:
        value = value.to(tl.float32)
    one = value == 1.0
    other = (value != 0.0) & (value != 1.0)  # NaN too
    # Different bits: their sum is their union.
    word = tl.sum(one.to(tl.int64) << lane.to(tl.int64)[None, :], axis=1)
    tl.store(bits + row * words + tl.program_id(1), word, mask=row < rows)
    program = tl.program_id(0).to(tl.int64) * words + tl.program_id(1)
    tl.store(found + 2 * program, tl.sum(tl.sum(one.to(tl.int64), axis=1), axis=0))
    tl.store(found + 2 * program + 1, tl.sum(tl.sum(other.to(tl.int64), axis=1), axis=0))


@triton.jit
def unpack(bits, x, rows, channels, words, BLOCK_R: tl.constexpr):
    """The inverse of `pack`: 0.0 or 1.0 for every bit."""
    lane = tl.arange(0, 64)
    c = tl.program_id(1) * 64 + lane
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    word = tl.load(bits + row * words + tl.program_id(1), mask=row < rows, other=0)
    value = ((word[:, None] >> lane.to(tl.int64)[None, :]) & 1).to(tl.float32)
    inside = (row < rows)[:, None] & (c < channels)[None, :]
    tl.store(x + row[:, None] * channels + c[None, :], value, mask=inside)
