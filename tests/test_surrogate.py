"""Surrogates: exact spikes forward, the derivative of the primitive backward (Eqs. 2 and 5)."""

import math

import numpy as np
import pytest
import torch

from rmploss.errors import UserError
from rmploss.surrogate import SURROGATES, ClippedTanh, Rectangle, Triangle, as_surrogate
from tests import lif_oracle as oracle
from tests.given import normal

OTHER = {
    "clipped_tanh": {"slope": 5.0},
    "rectangle": {"width": 0.6},
    "triangle": {"width": 0.7, "damping": 0.3},
    "sigmoid": {"alpha": 2.5},
    "arctan": {"alpha": 3.0},
}
"""Options other than the defaults."""
OTHER_KINKS = {"rectangle": (-0.3, 0.3), "triangle": (-0.7, 0.0, 0.7)}
"""Where the kinks go with them."""


def grid(kinks: tuple[float, ...], margin: float = 1e-3) -> torch.Tensor:
    """Distances to the threshold in [-3, 3] that keep away from the kinks."""
    v = torch.linspace(-3, 3, 997, dtype=torch.float64)
    keep = torch.ones_like(v, dtype=torch.bool)
    for kink in kinks:
        keep &= (v - kink).abs() > margin
    return v[keep]


@pytest.mark.parametrize("defaults", [True, False])
@pytest.mark.parametrize("name", SURROGATES)
def test_the_derivative_is_that_of_the_primitive(name: str, defaults: bool) -> None:
    surrogate = SURROGATES.make(name, **({} if defaults else OTHER[name]))
    kinks = oracle.KINKS[name] if defaults else OTHER_KINKS.get(name, oracle.KINKS[name])
    v = grid(kinks)
    eps = torch.finfo(torch.float64).eps
    h = eps ** (1 / 3)

    def difference(h: float) -> torch.Tensor:
        return (surrogate.primitive(v + h) - surrogate.primitive(v - h)) / (2 * h)

    small, large = difference(h), difference(2 * h)
    # Truncation as the two steps show it, plus 8 roundings of a value of at most one.
    tolerance = (large - small).abs() + 8 * eps / h
    assert ((surrogate.derivative(v) - small).abs() <= tolerance).all()


@pytest.mark.parametrize("name", SURROGATES)
def test_primitive_and_derivative_are_the_formulas(name: str) -> None:
    surrogate = SURROGATES.make(name)
    v = torch.linspace(-3, 3, 2401, dtype=torch.float64)  # holds the kinks themselves
    for got, want in (
        (surrogate.primitive(v), oracle.PHI[name](v.numpy())),
        (surrogate.derivative(v), oracle.PHI_SLOPE[name](v.numpy())),
    ):
        # Values up to the peak (2 here) by at most 8 operations of 1 ulp.
        np.testing.assert_allclose(got.numpy(), want, rtol=0, atol=16 * np.finfo(np.float64).eps)


@pytest.mark.parametrize("name", SURROGATES)
def test_a_primitive_runs_from_zero_to_one_through_a_half(name: str) -> None:
    surrogate = SURROGATES.make(name)
    v = torch.linspace(-4, 4, 801, dtype=torch.float64)
    phi = surrogate.primitive(v)
    assert surrogate.primitive(torch.zeros(1, dtype=torch.float64)).item() == 0.5
    assert (surrogate.derivative(v) >= 0).all()
    torch.testing.assert_close(phi + phi.flip(0), torch.ones_like(phi))
    far = torch.tensor([-1e9, 1e9], dtype=torch.float64)
    torch.testing.assert_close(
        surrogate.primitive(far), torch.tensor([0.0, 1.0], dtype=torch.float64), atol=1e-8, rtol=0
    )


def test_the_values_of_equation_5() -> None:
    phi = ClippedTanh()
    u = torch.tensor([0.5, 0.0, 1.0, -3.0, 4.0], dtype=torch.float64)
    derivative = phi.derivative(u - 0.5)
    peak, edge = 3 / (2 * math.tanh(1.5)), 3 / (2 * math.tanh(1.5)) / math.cosh(1.5) ** 2
    assert peak == pytest.approx(1.65719, abs=5e-6)
    assert edge == pytest.approx(0.29946, abs=5e-6)
    assert derivative[:3].tolist() == pytest.approx([peak, edge, edge], rel=1e-14)
    assert derivative[3:].tolist() == [0, 0]
    below, above = math.nextafter(-0.5, -1), math.nextafter(0.5, 1)
    just_outside = torch.tensor([below, above], dtype=torch.float64)
    assert phi.derivative(just_outside).tolist() == [0, 0]


def test_the_slope_of_equation_5_has_the_integral_one() -> None:
    n = 20_000
    v = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    # The midpoint rule errs by h^2 / 24 of the jump of the derivative over [-1/2, 1/2].
    assert ClippedTanh().derivative(v).mean().item() == pytest.approx(1, abs=1e-8)


def test_kinks() -> None:
    edge = torch.tensor([-0.5, 0.5], dtype=torch.float64)
    assert Rectangle().derivative(edge).tolist() == [0, 0]
    assert (ClippedTanh().derivative(edge) > 0.299).all()
    tip = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    assert Triangle().derivative(tip).tolist() == [0, 1, 0]


@pytest.mark.parametrize("name", SURROGATES)
def test_the_derivative_ends_at_the_half_width(name: str) -> None:
    options = {"width": 0.6} if name in ("rectangle", "triangle") else {}
    surrogate = SURROGATES.make(name, **options)
    reach = surrogate.half_width
    v = torch.tensor([0.99, 1.01], dtype=torch.float64) * (reach or 1)
    assert [slope > 0 for slope in surrogate.derivative(v)] == [True, reach is None]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SURROGATES)
def test_spikes_are_exact_and_fire_at_equality(name: str, dtype: torch.dtype) -> None:
    surrogate = SURROGATES.make(name)
    tiny = torch.finfo(dtype).tiny
    v = torch.tensor([-2.0, -tiny, -0.0, 0.0, tiny, 2.0], dtype=dtype)
    spikes = surrogate(v)
    assert spikes.dtype == dtype
    assert spikes.tolist() == [0, 0, 1, 1, 1, 1]


@pytest.mark.parametrize("name", SURROGATES)
def test_backward_is_the_derivative(name: str) -> None:
    surrogate = SURROGATES.make(name)
    v = normal(3, 50).requires_grad_()
    upstream = normal(3, 50, name="upstream")
    (gradient,) = torch.autograd.grad(surrogate(v), v, upstream)
    torch.testing.assert_close(
        gradient, upstream * surrogate.derivative(v.detach()), rtol=0, atol=0
    )


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("value", [0.0, -1.0, math.inf, math.nan])
def test_a_steepness_must_be_positive(name: str, value: float) -> None:
    for option in OTHER[name]:
        with pytest.raises(UserError, match="must be positive and finite"):
            SURROGATES.make(name, **{option: value})


def test_by_name_or_as_it_is() -> None:
    rectangle = Rectangle(width=2.0)
    assert as_surrogate(rectangle) is rectangle
    assert as_surrogate("triangle") == Triangle()
    with pytest.raises(UserError, match="unknown") as caught:
        as_surrogate("clipped_tan")
    assert caught.value.problems[0].fix == 'did you mean "clipped_tanh"?'
    for wrong in (3, None, Rectangle):
        with pytest.raises(UserError, match=r"must be a name(?s:.*)clipped_tanh, rectangle"):
            as_surrogate(wrong)  # pyright: ignore[reportArgumentType]
