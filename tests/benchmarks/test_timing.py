"""Rounds are interleaved; a contestant that is missing or wrong has a reason and no figure."""

from collections.abc import Callable

import pytest

from rmploss.errors import UserError
from rmploss_bench import timing
from rmploss_bench.contestants import CONTESTANTS, chosen, usual
from rmploss_bench.timing import Result, images_per_second, rounds, steps
from tests.benchmarks.kits import tiny_workload


def silent(what: str, done: int, total: int) -> None:
    """A ticker that shows nothing."""


def test_rounds_are_interleaved_after_an_untimed_one() -> None:
    order: list[str] = []
    ticks: list[tuple[int, int]] = []
    acts = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds = rounds(acts, 9, lambda what, done, total: ticks.append((done, total)))
    turns = ["".join(order[i : i + 6]) for i in range(0, 60, 6)]
    assert all(sorted(turn[::2]) == ["a", "b", "c"] for turn in turns)
    assert all(turn[::2] == turn[1::2] for turn in turns)  # a warm call before a timed one
    assert len(set(turns)) > 3  # no act always follows the same other act
    assert {name: len(times) for name, times in seconds.items()} == {"a": 9, "b": 9, "c": 9}
    assert ticks == [(done, 30) for done in range(1, 31)]


@pytest.mark.parametrize("measure", [steps, images_per_second])
def test_a_missing_peer_has_a_row_and_no_figure(
    measure: Callable[..., list[Result]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmploss_bench.peers.snntorch.peer_module", missing)
    results = measure(tiny_workload(), ["rmploss", "dense-bound", "snntorch"], 2, silent)
    assert [result.status for result in results[:2]] == ["green", "no gate"]
    assert all(len(result.figures) == 2 and result.median > 0 for result in results[:2])
    assert (results[2].figures, results[2].status) == ((), "not installed: pip install x")
    assert not any(result.red for result in results)


def missing(name: str) -> None:
    raise timing.MissingPeerError("not installed: pip install x")


def test_a_contestant_that_breaks_costs_no_other_its_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(self: object) -> None:
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr("rmploss_bench.dense.Dense.step", broken)
    whole, dense = steps(tiny_workload(), ["rmploss", "dense-bound"], 1, silent)
    assert whole.figures
    assert (dense.figures, dense.status, dense.red) == (
        (),
        "failed: RuntimeError: out of memory",
        True,
    )


def test_a_red_gate_leaves_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "gate", lambda workload, train: lambda name: "spikes differ")
    (result,) = steps(tiny_workload(), ["rmploss"], 1, silent)
    assert (result.figures, result.status, result.red) == ((), "gate red: spikes differ", True)


def test_contestants_of_training_only_are_left_out_of_evaluation() -> None:
    everyone, tested = {*usual(capture=False)}, {*usual(capture=False, train=False)}
    assert everyone - tested == {"rmploss+rmp", "rmploss-engine+rmp", "spikingjelly-memopt"}
    captured = {name for name in CONTESTANTS if name.endswith("-captured")}
    assert {*usual(capture=True)} - everyone == captured
    assert "spikingjelly-compiled-captured" in captured


def test_contestants_come_in_the_order_of_the_table() -> None:
    assert chosen(["norse", "rmploss"]) == ["rmploss", "norse"]
    assert chosen([]) == [*CONTESTANTS]
    with pytest.raises(UserError, match='did you mean "norse"'):
        chosen(["nors"])


def test_repeats_see_the_same_network() -> None:
    workload = tiny_workload()
    before = timing.firing_rate(workload)
    steps(workload, ["rmploss"], 1, silent)
    assert timing.firing_rate(workload) == before
