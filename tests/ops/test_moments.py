"""Membrane moments: Eqs. 8-9 literally, their gradients, and what cannot be asked for."""

import math

import pytest
import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.ops.lif.moments import (
    ERROR,
    MEMBRANE,
    SPIKES,
    SQUARE,
    MomentSpec,
    distance,
    membrane_moments,
)
from tests.given import normal

POWERS = (1.0, 2.0, 1.5, 0.5, 3.0)


def spikes_of(u: Tensor, v_threshold: float = 0.5) -> Tensor:
    """Eq. 2."""
    return (u >= v_threshold).to(u.dtype)


@pytest.mark.parametrize("p", POWERS)
@pytest.mark.parametrize("v_threshold", [0.5, 0.3, 1.0])
def test_distance_is_equation_8_to_the_power_p(p: float, v_threshold: float) -> None:
    u = normal(200, std=1.5)
    expected = [
        abs(1 - value) ** p if value >= v_threshold else abs(0 - value) ** p for value in u.tolist()
    ]
    # |.|^p by two libraries: each within 1 ulp or so of the truth.
    torch.testing.assert_close(
        distance(spikes_of(u, v_threshold), u, p),
        torch.tensor(expected, dtype=torch.float64),
        rtol=4 * torch.finfo(torch.float64).eps,
        atol=0,
    )


@pytest.mark.parametrize("p", POWERS)
def test_the_error_is_continuous_at_the_threshold_and_zero_at_the_spikes(p: float) -> None:
    u = torch.tensor([0.5, 0.5, 0.0, 1.0], dtype=torch.float64)
    o = torch.tensor([0.0, 1.0, 0.0, 1.0], dtype=torch.float64)
    expected = torch.tensor([0.5**p, 0.5**p, 0.0, 0.0], dtype=torch.float64)
    torch.testing.assert_close(distance(o, u, p), expected)


def test_a_quarter_on_both_sides_of_the_threshold() -> None:
    below = torch.tensor(math.nextafter(0.5, 0), dtype=torch.float64)
    at = torch.tensor(0.5, dtype=torch.float64)
    assert distance(spikes_of(at), at, 2).item() == 0.25
    assert distance(spikes_of(below), below, 2).item() == pytest.approx(0.25, abs=1e-15)


def test_the_gradient_at_p_2_is_twice_the_distance() -> None:
    u = normal(100).requires_grad_()
    o = spikes_of(u.detach())
    (gradient,) = torch.autograd.grad(distance(o, u, 2).sum(), u)
    torch.testing.assert_close(gradient, 2 * (u - o).detach(), rtol=1e-15, atol=0)


@pytest.mark.parametrize("p", POWERS)
def test_no_gradient_where_the_membrane_is_its_spike(p: float) -> None:
    u = torch.tensor([0.0, 1.0, 0.2], dtype=torch.float64, requires_grad=True)
    o = spikes_of(u.detach()).requires_grad_()
    g_u, g_o = torch.autograd.grad(distance(o, u, p).sum(), (u, o))
    assert g_u[:2].tolist() == [0, 0]
    assert g_o[:2].tolist() == [0, 0]
    assert g_u[2].item() == pytest.approx(p * 0.2 ** (p - 1))
    assert g_o[2].item() == pytest.approx(-p * 0.2 ** (p - 1))


@pytest.mark.parametrize(("std", "expected"), [(0.5, 0.1667), (1.0, 0.6044)])
def test_the_expected_error_of_a_normal_membrane(std: float, expected: float) -> None:
    # E[(o - u)^2] = s^2 + P(u >= 1/2) - 2 E[u; u >= 1/2], for u ~ N(0, s^2)
    cut = 0.5 / std
    tail = math.erfc(cut / math.sqrt(2)) / 2
    density = math.exp(-(cut**2) / 2) / math.sqrt(2 * math.pi)
    analytic = std**2 + tail - 2 * std * density
    assert analytic == pytest.approx(expected, abs=5e-5)
    # The same by a midpoint rule over ten deviations: its error is below 1e-6, at the jump of dq.
    n = 400_000
    u = (torch.arange(n, dtype=torch.float64) + 0.5) / n * 20 * std - 10 * std
    weight = torch.exp(-(u**2) / (2 * std**2)) / (std * math.sqrt(2 * math.pi)) * 20 * std / n
    measured = (distance(spikes_of(u), u, 2) * weight).sum().item()
    assert measured == pytest.approx(analytic, abs=1e-6)


def test_rows_and_channels() -> None:
    u = normal(2, 3, 4, 5)
    o = spikes_of(u)
    moments = membrane_moments(u, o, o, MomentSpec(p=1.5))
    assert moments.shape == (4, 3)
    for c in range(3):
        us, os = u[:, c].flatten().tolist(), o[:, c].flatten().tolist()
        sums = {
            MEMBRANE: math.fsum(us),
            SQUARE: math.fsum(v * v for v in us),
            ERROR: math.fsum(abs(s - v) ** 1.5 for s, v in zip(os, us, strict=True)),
            SPIKES: math.fsum(os),
        }
        for row, expected in sums.items():
            assert moments[row, c].item() == pytest.approx(expected, rel=1e-13, abs=1e-13)


def test_whether_the_gradient_passes_the_target() -> None:
    u, target = normal(2, 3).requires_grad_(), normal(2, 3, name="target").requires_grad_()
    for detached in (True, False):
        spec = MomentSpec(p=2, detach_target=detached)
        error = membrane_moments(u, u.detach(), target, spec)[ERROR].sum()
        g_u, g_target = torch.autograd.grad(error, (u, target), allow_unused=True)
        torch.testing.assert_close(g_u, 2 * (u - target).detach())
        assert (g_target is None) == detached
        if g_target is not None:
            torch.testing.assert_close(g_target, 2 * (target - u).detach())


@pytest.mark.parametrize("p", [0, -1, math.inf, math.nan, "2"])
def test_an_exponent_must_be_positive(p: float) -> None:
    with pytest.raises(UserError, match="must be a number" if p == "2" else "must be positive"):
        MomentSpec(p=p)


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        MomentSpec(p=0, potential="u_post")  # pyright: ignore[reportArgumentType]
    assert [problem.where for problem in caught.value.problems] == ["p = 0", "potential = 'u_post'"]
