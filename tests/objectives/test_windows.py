"""MPD-SGR and TGO's margin: both are the expectation of a function of the membrane, by moments."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from rmploss import LIF, UserError, membrane_stats
from rmploss.objectives.mpd_sgr import MPDSGRLoss
from rmploss.objectives.tgo import TGOLoss
from tests.given import normal

CASES = [(0.5, 0.2), (0.9, 0.1), (-1.0, 0.5), (0.4, 3.0)]
"""Mean and standard deviation of the membrane."""


def value(loss: MPDSGRLoss | TGOLoss, *us: Tensor, fires_at: float = 0.5) -> float:
    """Of layers without memory, whose potentials are given."""
    with membrane_stats(spec=loss.spec) as stats:
        for u in us:
            LIF(u.shape[2], decay=0.0, v_threshold=fires_at)(u)
    return loss.value(stats).item()


def expectation(u: Tensor, inside: float, height: bool, fires_at: float) -> float:
    """By the midpoint rule: of 1 where |v| < inside, or of inside - |v| there; v = u - fires_at."""
    means = u.mean((1, 3)).flatten().tolist()
    spreads = u.var((1, 3), correction=0).sqrt().flatten().tolist()
    v = (np.arange(200_000) + 0.5) / 200_000 * 2 * inside - inside
    f = inside - np.abs(v) if height else np.ones_like(v)
    terms = [
        (f * np.exp(-((v + fires_at - m) ** 2) / (2 * s * s))).mean()
        * (2 * inside / (s * math.sqrt(2 * math.pi)))
        for m, s in zip(means, spreads, strict=True)
    ]
    return sum(terms) / len(terms)


@pytest.mark.parametrize("fires_at", [0.5, 1.0])
@pytest.mark.parametrize(("mean", "std"), CASES)
def test_mpd_sgr_is_the_share_inside_the_window(mean: float, std: float, fires_at: float) -> None:
    u = normal(3, 4, 2, 16, mean=mean, std=std)
    for half_width in (0.5, 0.2):
        expected = expectation(u, half_width, False, fires_at)
        found = value(MPDSGRLoss(half_width=half_width), u, fires_at=fires_at)
        # The midpoint rule errs by (width / n)^2 / s^2 and less.
        assert found == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("fires_at", [0.5, 1.0])
@pytest.mark.parametrize(("mean", "std"), CASES)
def test_tgo_is_the_expected_lack_of_margin(mean: float, std: float, fires_at: float) -> None:
    u = normal(3, 4, 2, 16, mean=mean, std=std)
    for delta in (0.25, 0.6):
        expected = expectation(u, delta, True, fires_at)
        assert value(TGOLoss(delta=delta), u, fires_at=fires_at) == pytest.approx(
            expected, rel=1e-7, abs=1e-14
        )


@pytest.mark.parametrize("loss", [MPDSGRLoss(), TGOLoss()], ids=["mpd_sgr", "tgo"])
def test_of_normal_membranes_it_is_the_mean_over_them(loss: MPDSGRLoss | TGOLoss) -> None:
    u = normal(2, 100, 2, 400, mean=0.4, std=0.3)
    v = (u - 0.5).abs()
    values = (v < 0.5).double() if isinstance(loss, MPDSGRLoss) else (0.25 - v).clamp(min=0)
    # Five standard errors of a mean over all membranes.
    bound = 5 * values.std().item() / math.sqrt(values.numel())
    assert value(loss, u) == pytest.approx(values.mean().item(), abs=bound)


STEEPNESS = {
    MPDSGRLoss: 2 / math.sqrt(2 * math.pi),  # of two steps: 2 max|phi''|, over s^3
    TGOLoss: 4 * math.exp(-0.5) / math.sqrt(2 * math.pi),  # of three bends: 4 max|phi'|, over s^2
}
"""Bounds of |g'''| at s = 1, g(y) the mean of the term's function of N(y, s^2)."""


@pytest.mark.parametrize("decay", [0.25, 0.5])
@pytest.mark.parametrize("loss", [MPDSGRLoss(), TGOLoss()], ids=["mpd_sgr", "tgo"])
def test_leak_and_reset_leave_the_membrane_nearly_normal(
    loss: MPDSGRLoss | TGOLoss, decay: float
) -> None:
    s = 0.5
    x = normal(3, 500, 1, 1000, mean=0.3, std=s)
    lif = LIF(1, decay=decay)
    u = lif.membrane(x)
    v = (u - lif.v_threshold).abs()
    values = (v < 0.5).double() if isinstance(loss, MPDSGRLoss) else (0.25 - v).clamp(min=0)
    # Given what the reset leaves of the step before, y, u is N(y, s^2); the term is the mean of
    # g(y). Moments replace y by a normal number of the same mean and variance: by Taylor the means
    # differ by max|g'''| / 6 times the sum of their third absolute moments, sqrt(8/pi) sd^3 of the
    # normal one.
    y = decay * u * (u < lif.v_threshold)
    y = y - y.mean((1, 2, 3), keepdim=True)
    third = y.abs().pow(3).mean((1, 2, 3)) + math.sqrt(8 / math.pi) * y.std((1, 2, 3)).pow(3)
    steep = STEEPNESS[type(loss)] / s ** (3 if isinstance(loss, MPDSGRLoss) else 2)
    sampling = 5 * values.std().item() / math.sqrt(values.numel())
    bound = steep * third.max().item() / 6 + sampling
    assert bound < 0.2 * values.mean().item()
    with membrane_stats(spec=loss.spec) as stats:
        lif(x)
    assert loss.value(stats).item() == pytest.approx(values.mean().item(), abs=bound)


@pytest.mark.parametrize("loss", [MPDSGRLoss(), TGOLoss()], ids=["mpd_sgr", "tgo"])
def test_steps_and_layers_count_alike(loss: MPDSGRLoss | TGOLoss) -> None:
    u, w = normal(4, 2, 3, 8, mean=0.3, std=0.4), normal(4, 2, 5, 3, mean=0.5, std=0.2)
    steps = [value(loss, u[t : t + 1]) for t in range(4)]
    assert value(loss, u) == pytest.approx(sum(steps) / 4, rel=1e-13)
    assert len(set(steps)) == 4
    assert value(loss, u, w) == pytest.approx((value(loss, u) + value(loss, w)) / 2, rel=1e-13)


@pytest.mark.parametrize("loss", [MPDSGRLoss(), TGOLoss()], ids=["mpd_sgr", "tgo"])
def test_a_constant_membrane_has_a_finite_gradient(loss: MPDSGRLoss | TGOLoss) -> None:
    for constant in (0.5, 0.7, 5.0):
        x = torch.full((2, 2, 3, 4), constant, requires_grad=True)
        with membrane_stats(spec=loss.spec) as stats:
            LIF(3)(x)
        (g,) = torch.autograd.grad(loss.value(stats), x)
        assert torch.isfinite(g).all()


def test_wrong_options() -> None:
    with pytest.raises(UserError, match=r"weight = nan(?s:.*)half_width = 0"):
        MPDSGRLoss(weight=float("nan"), half_width=0)
    with pytest.raises(UserError, match=r"delta = -1"):
        TGOLoss(delta=-1)


def test_the_slope_at_an_edge_of_the_window_has_a_limit() -> None:
    """A silent channel rests at s = 0, with V_th = a at an edge: phi(0) / s would be 4e5 there.

    With s >= a / 100 it is 200 phi(0) = 80 of each channel and step, of which there are three.
    """
    u = torch.zeros(1, 4, 3, 8, dtype=torch.float64, requires_grad=True)
    loss = MPDSGRLoss()
    with membrane_stats(spec=loss.spec) as stats:
        LIF(3, decay=0.0)(u)
    loss.value(stats).backward()
    assert u.grad is not None
    assert loss.value(stats).item() == pytest.approx(0.5)
    slopes = u.grad.sum((0, 1, 3))
    torch.testing.assert_close(slopes, torch.full_like(slopes, 200 / math.sqrt(2 * math.pi) / 3))
