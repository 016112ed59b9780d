"""Epochs per hour: the sum of the parts, and no figure without a gate or without the images."""

import pytest

from rmploss.errors import UserError
from rmploss_bench import epoch
from rmploss_bench.epoch import epochs_per_hour
from rmploss_bench.timing import Result
from tests.benchmarks.kits import tiny_workload


def silent(what: str, done: int, total: int) -> None:
    """A ticker that shows nothing."""


def test_an_epoch_is_loading_steps_and_a_test(monkeypatch: pytest.MonkeyPatch) -> None:
    workload = tiny_workload()
    batch = workload.conditions.batch
    trained = [Result("a", "step (s)", (0.5, 1.0), "green"), Result("b", "", (), "gate red: x")]
    tested = [Result("a", "", (100.0, 200.0), "green"), Result("b", "", (), "gate red: x")]
    monkeypatch.setattr(epoch, "seconds_per_load", lambda workload: 0.25)
    monkeypatch.setattr(epoch, "steps", lambda *_: trained)
    monkeypatch.setattr(epoch, "images_per_second", lambda *_: tested)
    a, b = epochs_per_hour(workload, ["a", "b"], 2, silent)
    seconds = [50_000 / batch * 0.75 + 100, 50_000 / batch * 1.25 + 50]
    assert a.figures == pytest.approx([3600 / s for s in seconds])
    assert (b.figures, b.red) == ((), True)


def test_without_the_images_there_is_no_epoch() -> None:
    with pytest.raises(UserError, match="an epoch needs its images"):
        epochs_per_hour(tiny_workload(), ["rmploss"], 1, silent)
