"""The information lost between membrane and spike (section 4.3, Eqs. 13-17), from a histogram.

    L_KL(U || O) = sum over the spike values o of the integral over (o - eps, o + eps) of
                   P_U(u) log2(P_U(u) / P_O(u)) du                                    (14)

The paper calls P_O "a very large constant" whose integral over the window is 1: P_O = 1 / (2 eps).
The logarithm is of base 2, since Eq. 17 differentiates it to 1 / ln 2.

A condition the paper does not state: the derivative of the integrand, log2(P_U / P_O) + 1 / ln 2
(Eq. 17), is negative only while P_U < P_O / e. So Proposition 1 (a denser P_U near the spike loses
less) holds for densities below 1 / (2 e eps); `proposition_holds` tests that of a histogram.
"""

import math
from collections.abc import Iterator

from rmploss.analysis.histogram import BINS, HIGH, LOW, Histogram
from rmploss.errors import UserError

SPIKE_VALUES = (0.0, 1.0)


def kl_divergence(histogram: Histogram, eps: float = 0.1) -> float:
    """L_KL(U || O) of Eq. 14, in bits.

    histogram: P_U, constant within a bin. A bin that a window cuts counts for its part.
    eps: half-width of the windows around 0 and 1, in (0, 0.5]; dimensionless.

    Raises `UserError` for another eps.
    """
    constant = _constant(eps)
    return sum(
        density * math.log2(density / constant) * part
        for density, part in _windows(histogram, eps)
        if density > 0
    )


def proposition_holds(histogram: Histogram, eps: float = 0.1) -> bool:
    """True if Eq. 17 is negative in every bin of both windows, as Proposition 1 assumes."""
    limit = _constant(eps) / math.e
    return all(density < limit for density, _ in _windows(histogram, eps))


def _constant(eps: float) -> float:
    """P_O, whose integral over one window is 1."""
    if not 0 < eps <= 0.5:
        raise UserError(
            f"eps = {eps!r} must lie in (0, 0.5], or the windows around 0 and 1 overlap"
        )
    return 1 / (2 * eps)


def _windows(histogram: Histogram, eps: float) -> Iterator[tuple[float, float]]:
    """For each part of a bin inside a window, the density of u_pre and the part's length."""
    width = (HIGH - LOW) / BINS
    for index, density in enumerate(histogram.density()):
        low = LOW + index * width
        for spike in SPIKE_VALUES:
            part = min(low + width, spike + eps) - max(low, spike - eps)
            if part > 1e-12:  # rounding: a bin that only touches a window is outside
                yield density, part
