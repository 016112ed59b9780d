"""NeuNorm against its formula, written out in NumPy; and its gradient."""

import numpy as np
import pytest
import torch

from rmploss import UserError
from rmploss.models.neunorm import Constraint, NeuNorm
from tests.given import normal

SHAPE = T, B, F, H, W = (4, 2, 3, 2, 2)


def gain(constraint: str, k: float) -> float:
    """v/F, the factor of the sum over the channels."""
    return (1 - k) / F**2 if constraint == "k+vF=1" else (1 - k) / F


@pytest.mark.parametrize("constraint", ["k+vF=1", "k+v=1"])
@pytest.mark.parametrize("k", [0.0, 0.9])
def test_it_is_the_formula(constraint: Constraint, k: float) -> None:
    layer = NeuNorm(F, H, decay=k, constraint=constraint).double()
    o = (normal(*SHAPE) > 0).double()
    weight, x, expected = layer.weight.detach().numpy(), np.zeros((B, H, W)), np.empty(SHAPE)
    for t in range(T):
        x = k * x + gain(constraint, k) * o[t].numpy().sum(1)
        for f in range(F):
            expected[t, :, f] = o[t, :, f].numpy() - weight[f] * x
    # Sums of a dozen float64 numbers of order one.
    np.testing.assert_allclose(layer(o).detach().numpy(), expected, rtol=0, atol=1e-14)


def test_where_it_settles_when_all_channels_fire() -> None:
    o = torch.ones(400, 1, F, 1, 1, dtype=torch.float64)
    levels: dict[Constraint, float] = {"k+vF=1": 1 / F, "k+v=1": 1.0}
    for constraint, level in levels.items():
        layer = NeuNorm(F, 1, constraint=constraint).double()
        torch.nn.init.ones_(layer.weight)
        # What is missing after 400 steps is 0.9^400 = 5e-19 of it.
        left = torch.full((1, F, 1, 1), 1 - level, dtype=torch.float64)
        torch.testing.assert_close(layer(o)[-1], left, rtol=0, atol=1e-14)


def test_the_gradient_is_a_finite_difference() -> None:
    layer = NeuNorm(F, H, constraint="k+v=1").double()
    o = normal(*SHAPE).requires_grad_()
    assert torch.autograd.gradcheck(lambda o, _: layer(o), (o, layer.weight))


def test_u_starts_within_one_over_the_side() -> None:
    weight = NeuNorm(64, 8).weight
    assert weight.shape == (64, 8, 8)
    # The bound of kaiming_uniform(sqrt 5) with fan-in H W; of 4096 draws the largest is near it.
    assert 0.99 / 8 < weight.abs().max().item() <= 1 / 8


def test_wrong_constants_are_told() -> None:
    with pytest.raises(UserError) as caught:
        NeuNorm(3, 2, decay=1.5, constraint="v")  # pyright: ignore[reportArgumentType]
    assert [p.where for p in caught.value.problems] == ["decay = 1.5", "constraint = 'v'"]
