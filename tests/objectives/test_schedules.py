"""lambda(n): the shapes over training."""

import math

import pytest

from rmploss import UserError
from rmploss.objectives.schedules import SCHEDULES, evaluate


def test_triangle() -> None:
    assert [evaluate(SCHEDULES["triangle"], x) for x in (0, 0.25, 0.5, 0.75, 1)] == [
        0, 0.5, 1, 0.5, 0
    ]  # fmt: skip


def test_constant() -> None:
    assert {evaluate(SCHEDULES["constant"], x / 10) for x in range(11)} == {1}


def test_cosine_is_the_alternative_of_the_authors_script() -> None:
    # 0.05 (1 + cos(pi e/N)) is 0.1 times the shape: 0.1 at the start, zero at the end.
    for x in (0, 0.3, 1):
        weight = 0.1 * evaluate(SCHEDULES["cosine"], x)
        assert weight == pytest.approx(0.05 * (1 + math.cos(math.pi * x)), abs=1e-16)


def test_rising_cosine() -> None:
    values = [evaluate(SCHEDULES["rising_cosine"], x) for x in (0, 0.5, 1)]
    assert values == pytest.approx([0, 0.5, 1], abs=1e-16)


@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_stays_between_zero_and_one(name: str) -> None:
    values = [evaluate(SCHEDULES[name], n / 1000) for n in range(1001)]
    assert min(values) >= 0
    assert max(values) == 1


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("progress", [-0.01, 1.01, float("nan")])
def test_progress_lies_in_training(name: str, progress: float) -> None:
    with pytest.raises(UserError, match=r"\[0, 1\]: it is \(epoch \+ 1\) / epochs"):
        evaluate(SCHEDULES[name], progress)
