"""Eqs. 1-3, 5, 6 and 9 and the other surrogates on a tile, for all kernels of neurons."""

# What @triton.jit compiles only looks like Python: to pyright a number is no constexpr there.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false, reportAssignmentType=false

import triton
import triton.language as tl

from rmploss import surrogate
from rmploss.ops.lif import inputs

CLIPPED_TANH = tl.constexpr(inputs.KINDS[surrogate.ClippedTanh])
RECTANGLE = tl.constexpr(inputs.KINDS[surrogate.Rectangle])
TRIANGLE = tl.constexpr(inputs.KINDS[surrogate.Triangle])
SIGMOID = tl.constexpr(inputs.KINDS[surrogate.Sigmoid])
HARD, SOFT = tl.constexpr(inputs.HARD), tl.constexpr(inputs.SOFT)


@triton.jit
def per_channel(values, c, channels, DEFAULT: tl.constexpr, dtype: tl.constexpr):
    """One number per column [1, BLOCK_C] of `values` [C], or DEFAULT if `values` is None."""
    if values is None:
        found = tl.full(c.shape, DEFAULT, dtype)
    else:
        found = tl.load(values + c, mask=c < channels, other=0.0)
    return found[None, :]


@triton.jit
def charge(u, x, decay):
    """u_pre (Eq. 1)."""
    return decay * u + x


@triton.jit
def fire(potential, threshold):
    """The spikes 0 or 1 of a potential (Eq. 2)."""
    return (potential >= threshold).to(potential.dtype)


@triton.jit
def after_reset(pre, o, threshold, RESET: tl.constexpr, RESET_TO: tl.constexpr):
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
def distance(d, P: tl.constexpr):
    """|d|^P (Eq. 9)."""
    if P == 2:
        q = d * d
    elif P == 1:
        q = tl.abs(d)
    else:
        q = _power(tl.abs(d), P)
    return q


@triton.jit
def distance_slope(d, P: tl.constexpr):
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
def surrogate_slope(
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
