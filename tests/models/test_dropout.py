"""Dropout over time: whose masks they are, what they scale, and that they can be drawn again."""

import math

import pytest
import torch

from rmploss import UserError, checkpoint
from rmploss.models.dropout import Dropout
from rmploss.randomness import seeded
from tests.given import normal

ONES = torch.ones(4, 3, 50, dtype=torch.float64)


@pytest.mark.parametrize("one_mask", [True, False])
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_a_share_is_dropped_and_the_rest_scaled(p: float, one_mask: bool) -> None:
    with seeded(0, "dropout"):
        y = Dropout(p, one_mask=one_mask)(ONES)
    assert set(y.unique().tolist()) == {0.0, 1 / (1 - p)}
    masks = y if not one_mask else y[:1]
    # Five deviations of the share among that many independent draws.
    bound = 5 * math.sqrt(p * (1 - p) / masks.numel())
    assert abs((masks == 0).double().mean().item() - p) < bound


def test_a_mask_for_each_step_or_one_for_all() -> None:
    with seeded(0, "dropout"):
        own, shared = Dropout()(ONES), Dropout(one_mask=True)(ONES)
    assert all(torch.equal(step, shared[0]) for step in shared)
    assert len({tuple(step.flatten().tolist()) for step in own}) == 4
    assert not torch.equal(shared[0, 0], shared[0, 1])  # samples have their own


def test_the_gradient_passes_the_same_mask() -> None:
    x = normal(4, 3, 50).requires_grad_()
    with seeded(0, "dropout"):
        y = Dropout()(x)
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y, rtol=0, atol=0)


def test_masks_are_those_of_the_generator() -> None:
    drop = Dropout()
    with seeded(1, "step"):
        first, second = drop(ONES), drop(ONES)
    with seeded(1, "step"):
        again = drop(ONES)
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    x = normal(4, 3, 50).requires_grad_()
    y = checkpoint(drop, x)  # the second run, in backward, draws what the first drew
    (gradient,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(gradient * x, y, rtol=0, atol=0)


def test_evaluation_and_a_share_of_zero_give_x_on() -> None:
    assert Dropout().eval()(ONES) is ONES
    assert Dropout(0.0)(ONES) is ONES


@pytest.mark.parametrize("p", [-0.1, 1.0, math.nan])
def test_a_share_out_of_range_is_told(p: float) -> None:
    with pytest.raises(UserError, match=r"must lie in \[0, 1\)"):
        Dropout(p)
