"""A comparison at its best, in tiny: its rounds, its choice, and that it goes on where it was."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rmploss.engine import fair_best
from rmploss.engine.fair_best import Comparison, run
from rmploss.engine.listener import Listener
from rmploss.engine.rows import Row, Rows
from rmploss.errors import NonFiniteError, StoreError, UserError
from rmploss.recipes import use
from rmploss.recipes.fair_best import Protocol
from tests.result_rows import result_row

TINY = Protocol(
    pocket=True,
    changes={
        "data": use("digits"),
        "network": use("convnet", width=0.125),
        "T": 2,
        "epochs": 2,
        "batch_size": 32,
        "train_samples": 128,
        "test_samples": 64,
    },
    tries=2,
    try_epochs=1,
    validation=0.25,
    seeds=(0, 1),
)
SYSTEMS = ("vanilla", "real")


class Words(Listener):
    """Keeps the first word of every note."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()

    def note(self, text: str) -> None:
        self.kinds[text.partition(":")[0]] += 1


def comparison(folder: Path) -> Comparison:
    return Comparison(TINY, Rows(folder / TINY.file))


def tried(done: Comparison, system: str) -> list[Row]:
    """The rows of all tries of a system."""
    rows = [done.rows.of(TINY.try_of(system, setting)) for setting in TINY.settings(system)]
    assert None not in rows
    return [row for row in rows if row is not None]


def test_tries_choose_and_reports_follow_and_nothing_runs_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words, runs = Words(), tmp_path / "runs"
    run(comparison(tmp_path), runs, listener=words, systems=SYSTEMS)
    done = comparison(tmp_path)
    assert words.kinds["try"] == 4
    assert len(list(runs.iterdir())) == words.kinds["report"] >= 4
    assert not [path for path in runs.iterdir() if "-try-" in path.name]
    for system in SYSTEMS:
        chosen = done.chosen(system)
        assert chosen is not None
        rows = tried(done, system)
        assert {row.kind for row in rows} == {"try"}
        ours = done.rows.of(TINY.try_of(system, chosen))
        assert ours is not None
        assert ours.accuracy == max(row.accuracy for row in rows)
        assert len(done.reports(system, {})) == len(done.reports(system, chosen)) == 2
    # Tries of all systems are tested on the same images, which are not those of the reports.
    (split,) = {row.tested_on for system in SYSTEMS for row in tried(done, system)}
    assert split not in {row.tested_on for row in done.reports("real", {})}
    # In a fresh checkout, of which only the rows are left:
    monkeypatch.setattr(fair_best, "train", lambda *_, **__: pytest.fail("a run was repeated"))
    run(done, tmp_path / "elsewhere", systems=SYSTEMS)


def test_an_interrupted_comparison_goes_on_after_its_last_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, trained = fair_best.train, []

    def interrupted(recipe: Any, *arguments: Any, **options: Any) -> Path:
        if len(trained) == 1:
            raise KeyboardInterrupt
        trained.append(recipe.name)
        return original(recipe, *arguments, **options)

    monkeypatch.setattr(fair_best, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(comparison(tmp_path), tmp_path / "runs", systems=SYSTEMS)
    left = list(comparison(tmp_path)._tries_left(SYSTEMS))
    assert [kind for kind, *_ in left] == ["try"] * 3
    # The rounds go over the systems: the second system's first try is next.
    assert left[0][1].name == "fair-real-pocket"


def test_a_try_that_diverges_has_a_row_and_is_not_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverging(recipe: Any, folder: Path, *_: Any, name: str, **__: Any) -> Path:
        (folder / name).mkdir(parents=True)
        raise NonFiniteError("NaN")

    monkeypatch.setattr(fair_best, "train", diverging)
    run(comparison(tmp_path), tmp_path / "runs", systems=("vanilla",))
    assert not list((tmp_path / "runs").glob("*-try-*"))
    done = comparison(tmp_path)
    first, second = TINY.settings("vanilla")
    row = done.rows.of(TINY.try_of("vanilla", first))
    assert row is not None
    assert (row.outcome, row.last_accuracy) == ("diverged", "")
    assert done.chosen("vanilla") == first  # of equals the first
    done.rows.add(result_row("try", TINY.try_of("vanilla", second), 10.0))
    assert done.chosen("vanilla") == second


def test_a_file_that_cannot_be_written_is_told_before_the_first_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fair_best, "train", lambda *_, **__: pytest.fail("a run was trained"))
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot write"):
        run(comparison(tmp_path / "file"), tmp_path / "runs", systems=SYSTEMS)


def test_an_unknown_system_is_named_with_the_nearest_one(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such system") as caught:
        run(comparison(tmp_path), tmp_path / "runs", systems=("tdbm",))
    assert "tdbn" in caught.value.problems[0].fix
    assert not list(tmp_path.iterdir())


def test_nothing_is_chosen_while_a_try_is_missing(tmp_path: Path) -> None:
    begun = comparison(tmp_path)
    begun.rows.add(result_row("try", TINY.try_of("vanilla", {})))
    assert begun.chosen("vanilla") is None
