"""Classification losses against their formulas, element by element, and differences."""

import math

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmploss import UserError
from rmploss.objectives import LOSSES, Loss
from rmploss.objectives.losses import TET, CrossEntropy, MeanSquaredError
from tests.given import labels, normal

T, B, K = 3, 4, 5
Array = NDArray[np.float64]
LABELS = labels(B, K)
CASES = {
    "ce": CrossEntropy(),
    "tet": TET(),
    "tet 0": TET(weight=0.0),
    "tet 1": TET(weight=1.0, target=0.3),
    "mse": MeanSquaredError(),
    "mse per step": MeanSquaredError(per_step=True),
}


def cross_entropy(z: Array, y: int) -> float:
    """-log of the softmax at y."""
    return -math.log(math.exp(z[y]) / sum(math.exp(value) for value in z))


def formula(name: str, o: Array, y: list[int]) -> float:
    """Each loss of the outputs `[T][B][K]`, where the read-out is the mean over time."""
    mean = o.mean(0)
    if name == "ce":
        return sum(cross_entropy(mean[b], y[b]) for b in range(B)) / B
    if name.startswith("tet"):
        weight, target = {"tet": (0.05, 1.0), "tet 0": (0.0, 1.0), "tet 1": (1.0, 0.3)}[name]
        every = sum(cross_entropy(o[t, b], y[b]) for t in range(T) for b in range(B)) / (T * B)
        pull = sum((value - target) ** 2 for value in o.flatten()) / (T * B * K)
        return (1 - weight) * every + weight * pull
    steps = o if name == "mse per step" else [mean]
    squares = [
        (step[b, c] - (c == y[b])) ** 2 for step in steps for b in range(B) for c in range(K)
    ]
    return sum(squares) / len(squares)


@pytest.mark.parametrize("name", CASES)
def test_it_is_its_formula(name: str) -> None:
    o = normal(T, B, K)
    got = CASES[name](o, o.mean(0), LABELS).item()
    # Sums of sixty numbers of order one, and an exponential and a logarithm.
    assert got == pytest.approx(formula(name, o.numpy(), LABELS.tolist()), rel=1e-13)


@pytest.mark.parametrize("name", CASES)
def test_its_gradient_is_a_finite_difference(name: str) -> None:
    loss = CASES[name]

    def value(o: Tensor) -> Tensor:
        return loss(o, o.mean(0), LABELS)

    assert torch.autograd.gradcheck(value, normal(T, B, K).requires_grad_())


@pytest.mark.parametrize("name", CASES)
def test_the_mean_over_shares_is_the_loss_of_the_batch(name: str) -> None:
    loss, o = CASES[name], normal(T, B, K)
    halves = [o[:, :2], o[:, 2:]]
    terms = [loss(h, h.mean(0), y) for h, y in zip(halves, LABELS.split(2), strict=True)]
    whole = loss(o, o.mean(0), LABELS)
    torch.testing.assert_close(torch.stack(terms).mean(), whole, rtol=1e-14, atol=0)


def test_tet_of_one_step_is_cross_entropy() -> None:
    o = normal(1, B, K)
    torch.testing.assert_close(
        TET(weight=0.0)(o, o[0], LABELS), CrossEntropy()(o, o[0], LABELS), rtol=1e-15, atol=0
    )


def test_the_squared_errors_differ_by_the_variance_over_time() -> None:
    # mean (o - y)^2 = (mean o - y)^2 + var o: the two readings of PLIF.
    o = normal(T, B, K)
    mean, every = (CASES[name](o, o.mean(0), LABELS) for name in ("mse", "mse per step"))
    spread = o.var(0, correction=0).mean()
    torch.testing.assert_close(every, mean + spread, rtol=1e-14, atol=0)


@pytest.mark.parametrize("loss", CASES.values(), ids=CASES)
def test_half_precision_is_widened(loss: Loss) -> None:
    o = normal(T, B, K).half()
    assert loss(o, o.mean(0), LABELS).dtype == torch.float32
    assert loss.needs == "outputs"


def test_wrong_options_are_reported() -> None:
    for weight in (-0.1, 1.5, math.nan):
        with pytest.raises(UserError, match=r"weight(?s:.*)must lie in \[0, 1\]"):
            TET(weight=weight)
    with pytest.raises(UserError, match=r"loss\.wieght"):
        LOSSES.make("tet", wieght=0.1)
