"""The information loss of section 4.3: Eq. 14 on known densities, Propositions 1 and 2."""

import math

import pytest

from rmploss import UserError
from rmploss.analysis import Histogram, kl_divergence, proposition_holds
from rmploss.analysis.histogram import BINS, HIGH, LOW

WIDTH = (HIGH - LOW) / BINS


def with_counts(at: dict[float, int]) -> Histogram:
    """A histogram with counts in the bins of these lower edges."""
    counts = [0] * BINS
    for edge, count in at.items():
        counts[round((edge - LOW) / WIDTH)] = count
    return Histogram("lif", 0.5, tuple(counts), 0, 0)


def test_equation_14_of_a_uniform_density() -> None:
    histogram = Histogram("lif", 0.5, (7,) * BINS, 0, 0)
    density = 1 / (HIGH - LOW)
    # Two windows of width 0.2 with P_O = 5: each holds eight of the bins of width 0.025.
    expected = 2 * 0.2 * density * math.log2(density / 5)
    assert kl_divergence(histogram, eps=0.1) == pytest.approx(expected, rel=1e-12)


def test_equation_14_of_two_bins() -> None:
    histogram = with_counts({0.0: 1, 1.05: 3})
    densities = (0.25 / WIDTH, 0.75 / WIDTH)
    expected = sum(p * math.log2(p / 2.5) * WIDTH for p in densities)
    assert kl_divergence(histogram, eps=0.2) == pytest.approx(expected, rel=1e-12)


def test_a_bin_that_a_window_cuts_counts_for_its_part() -> None:
    histogram = Histogram("lif", 0.5, (7,) * BINS, 0, 0)
    density = 1 / (HIGH - LOW)
    for eps in (0.013, 0.1, 0.111, 0.5):
        expected = 4 * eps * density * math.log2(density * 2 * eps)
        assert kl_divergence(histogram, eps) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("eps", [0.0, -0.1, 0.51, math.nan])
def test_windows_must_not_overlap(eps: float) -> None:
    histogram = Histogram("lif", 0.5, (7,) * BINS, 0, 0)
    for function in (kl_divergence, proposition_holds):
        with pytest.raises(UserError, match=r"must lie in \(0, 0.5\]"):
            function(histogram, eps)


def test_outside_of_the_windows_nothing_counts() -> None:
    assert kl_divergence(with_counts({0.4: 5, -1.0: 2}), eps=0.1) == 0


def test_proposition_1_where_it_holds_and_where_it_does_not() -> None:
    total = 1000

    # Densities far below 1 / (2 e eps): a denser one loses less. Above it, it loses more.
    def spread(per_bin: int) -> Histogram:
        counts = [0] * BINS
        window = [i for i in range(BINS) if abs(LOW + (i + 0.5) * WIDTH) < 0.1]
        for index in window:
            counts[index] = per_bin
        counts[round((-1.0 - LOW) / WIDTH)] = total - per_bin * len(window)
        return Histogram("lif", 0.5, tuple(counts), 0, 0)

    limit = WIDTH * total / (2 * math.e * 0.1)  # counts per bin at P_U = P_O / e
    assert limit == pytest.approx(45.98, abs=0.01)
    low = [kl_divergence(spread(n)) for n in (5, 15, 30, 45)]
    assert low == sorted(low, reverse=True)
    high = [kl_divergence(spread(n)) for n in (46, 60, 90, 120)]
    assert high == sorted(high)
    assert [proposition_holds(spread(n)) for n in (5, 45, 46, 120)] == [True, True, False, False]
