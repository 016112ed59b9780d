"""The Van Rossum distance: the published targets, a sum written out, its gradient."""

import math

import pytest
import torch

from rmploss import UserError
from rmploss.objectives import LOSSES
from rmploss.objectives.van_rossum import VanRossum
from tests.given import labels, normal

TARGETS = [
    ({}, [0, 0.5, 0.25, 0.625, 0.8125]),  # generation A
    ({"pattern": (0, 1, 1, 1, 1)}, [0, 0.5, 0.75, 0.875, 0.9375]),  # since October 2020
    ({"pattern": (0, 1, 1, 1, 1), "tau_s": 3.0}, [0, 27 / 81, 45 / 81, 57 / 81, 65 / 81]),
    ({"pattern": (0, 1, 1, 1, 1), "tau_s": 3.0, "filters": 2},
     [0, 27 / 243, 63 / 243, 99 / 243, 131 / 243]),  # since December 2020
]  # fmt: skip
"""As published: .333 .556 .704 .802 are the third, .111 .259 .407 .539 the fourth, rounded."""


@pytest.mark.parametrize(("options", "expected"), TARGETS)
def test_the_published_targets(options: dict[str, object], expected: list[float]) -> None:
    d = LOSSES.make("van_rossum", **options).target(5)
    assert d.tolist() == pytest.approx(expected, abs=1e-15)


def test_the_loss_is_the_published_sum_written_out() -> None:
    a, y = normal(5, 4, 3), labels(4, 3)
    d = [0, 0.5, 0.25, 0.625, 0.8125]
    total = sum(
        (a[t, n, c].item() - (d[t] if c == y[n] else 0)) ** 2
        for t in range(5)
        for n in range(4)
        for c in range(3)
    )
    for weight in (1.0, 4.0):  # the batch: the sum itself
        loss = VanRossum(weight=weight)(a, a.sum(0), y)
        assert loss.item() == pytest.approx(weight / 4 * total / 2, rel=1e-14)


def test_its_gradient_is_the_difference_from_the_target() -> None:
    a, y = normal(5, 50, 3).requires_grad_(), labels(50, 3)
    VanRossum(weight=50.0)(a, a.sum(0), y).backward()
    d = VanRossum().target(5)
    expected = a.detach().clone()
    expected[:, torch.arange(50), y] -= d[:, None]
    assert a.grad is not None
    torch.testing.assert_close(a.grad, expected, rtol=1e-14, atol=1e-15)


def test_the_parts_of_a_batch_are_the_batch() -> None:
    a, y = normal(5, 4, 3), labels(4, 3)
    loss = VanRossum(weight=50.0)
    parts = [loss(a[:, n : n + 2], a[:, n : n + 2].sum(0), y[n : n + 2]) for n in (0, 2)]
    whole = loss(a, a.sum(0), y).item()
    assert torch.stack(parts).mean().item() == pytest.approx(whole, rel=1e-14)


def test_other_numbers_of_steps_alternate() -> None:
    loss = VanRossum(tau_s=1.0)  # a filter that lets everything through
    assert loss.target(10).tolist() == [0, 1] * 5
    assert loss.target(4).tolist() == [0, 1, 0, 1]
    assert loss.target(1).tolist() == [1]


def test_half_precision_is_summed_in_single() -> None:
    a = normal(5, 2, 3).half()
    loss = VanRossum()(a, a.sum(0), labels(2, 3))
    assert loss.dtype == torch.float32
    wide = VanRossum()(a.float(), a.float().sum(0), labels(2, 3))
    assert torch.equal(loss, wide)


def test_what_cannot_be() -> None:
    with pytest.raises(UserError) as caught:
        VanRossum(weight=0.0, pattern=(0, 2), tau_s=math.nan, filters=3)  # pyright: ignore[reportArgumentType]
    assert [p.where for p in caught.value.problems] == [
        "weight = 0.0", "pattern = (0, 2)", "tau_s = nan", "filters = 3"
    ]  # fmt: skip
    a = normal(4, 2, 3)
    with pytest.raises(UserError, match="has 5 steps, the outputs have 4"):
        VanRossum(pattern=(0, 1, 0, 1, 1))(a, a.sum(0), labels(2, 3))
