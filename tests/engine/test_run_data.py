"""The data of a run are recorded, and compared when it is resumed, forked or evaluated."""

import dataclasses
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.cli import main
from rmploss.data import InMemory, Samples, fingerprint
from rmploss.data._loading import Subset
from rmploss.data.digits import Digits
from rmploss.engine import batches, run_data
from rmploss.engine.load import evaluate_run
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import UserError
from tests.engine.runs import TINY, digest_of
from tests.engine.test_fork import Notes
from tests.engine.test_go_on import EVERY_STEP, Dying


def splits() -> tuple[InMemory, InMemory]:
    """The digits."""
    found = Digits().open(None, seed=0, T=1)
    assert isinstance(found.train, InMemory)
    assert isinstance(found.test, InMemory)
    return found.train, found.test


def fewer(x: InMemory) -> InMemory:
    """One sample less."""
    return x.select(torch.arange(len(x) - 1))


def relabelled(x: InMemory) -> InMemory:
    """One sample of another class."""
    labels = x.labels.clone()
    labels[0] = (labels[0] + 1) % 10
    return dataclasses.replace(x, labels=labels)


def reordered(x: InMemory) -> InMemory:
    """The last sample first."""
    return x.select(torch.arange(len(x)).roll(1))


def repainted(x: InMemory) -> InMemory:
    """Other pixels, with the same labels."""
    return dataclasses.replace(x, stored=x.stored ^ 1)


CHANGES: list[tuple[Callable[[InMemory], InMemory], str]] = [
    (fewer, "128 samples are now 127"),
    (relabelled, "samples of class"),
    (reordered, "other labels or in another order"),
    (repainted, "samples of other content, with the same labels"),
]


def let_data_be(
    monkeypatch: pytest.MonkeyPatch, change: Callable[[InMemory], InMemory], split: int
) -> None:
    """Change a split of every run from here on, as it is opened."""
    original = batches.open_splits

    def changed(*arguments: Any, **options: Any) -> tuple[Samples, ...]:
        found: list[Any] = [*original(*arguments, **options)]
        found[split] = change(found[split])
        return tuple(found)

    monkeypatch.setattr("rmploss.engine.loop.open_splits", changed)
    monkeypatch.setattr("rmploss.engine.load.open_splits", changed)


def stopped(tmp_path: Path) -> Path:
    """A run that ended in its first epoch."""
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path / "runs", EVERY_STEP, Dying(epoch=1, done=3))
    (path,) = (tmp_path / "runs").iterdir()
    return path


def files(path: Path) -> dict[Path, bytes]:
    """All files of a run folder but its lock."""
    kept = (file for file in path.rglob("*") if file.is_file() and file.name[0] != ".")
    return {file: file.read_bytes() for file in kept}


@pytest.mark.parametrize(("change", "words"), CHANGES, ids=lambda x: getattr(x, "__name__", ""))
def test_a_resume_on_other_data_is_refused_and_changes_nothing(
    change: Callable[[InMemory], InMemory],
    words: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = stopped(tmp_path)
    before = files(path)
    with monkeypatch.context() as patch:
        let_data_be(patch, change, 0)
        with pytest.raises(UserError, match=words) as refused:
            resume(path)
    assert refused.value.problems[0].where == "digits, train"
    assert f"--fork {path}" in refused.value.problems[0].fix
    assert files(path) == before
    assert digest_of(resume(path)) == digest_of(train(TINY, tmp_path / "unbroken"))


def test_a_fork_on_other_data_says_so_unless_its_recipe_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = train(TINY.but(epochs=1), tmp_path / "source")
    for recipe, count in ((TINY, 1), (TINY.but(train_samples=127), 0)):
        notes = Notes()
        with monkeypatch.context() as patch:
            if count:
                let_data_be(patch, repainted, 0)
            path = train(recipe, tmp_path / f"fork{count}", None, notes, fork=source)
        said = [text for text in notes.text if "train data are not those of" in text]
        events = [event for event in RunFolder.open(path).events() if event["event"] == "fork"]
        assert (len(said), "other_data" in events[0]) == (count, bool(count))


def test_an_evaluation_on_other_data_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = train(TINY.but(epochs=1), tmp_path)
    assert main(["eval", str(path)]) == 0
    assert "not those of the run" not in capsys.readouterr().err
    let_data_be(monkeypatch, repainted, 0)  # of the training split, which an evaluation leaves
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        evaluate_run(path, device="cpu")
    let_data_be(monkeypatch, repainted, 1)
    with pytest.warns(RuntimeWarning, match="the data are not those of the run"):
        evaluate_run(path, device="cpu")
    assert main(["eval", str(path)]) == 0
    assert "note: the data are not those of the run: samples of" in capsys.readouterr().err


def test_a_run_without_a_record_goes_on_and_says_so_once(tmp_path: Path) -> None:
    path = stopped(tmp_path)
    events = path / "events.jsonl"
    events.write_text(events.read_text().replace('"data": ', '"other": '))
    assert run_data.recorded(RunFolder.open(path).events()) is None
    words = "the data are not compared: the run recorded none so far"
    said: list[str] = []

    class Noting(Dying):
        def note(self, text: str) -> None:
            said.append(text)

    with pytest.raises(RuntimeError, match="the machine failed"):
        resume(path, EVERY_STEP, Noting(epoch=2, done=1))
    assert said.count(words) == 1
    later = Notes()
    resume(path, None, later)
    assert words not in later.text
    assert run_data.recorded(RunFolder.open(path).events()) is not None


def test_a_damaged_record_is_not_compared(tmp_path: Path) -> None:
    path = stopped(tmp_path)
    events = RunFolder.open(path).events()
    (record,) = [event["data"] for event in events if event["event"] == "execute"]
    assert run_data.recorded(events) == record
    record["train"]["samples"] += 1
    assert run_data.recorded(events) is None


def test_a_fingerprint_is_that_of_the_stored_samples() -> None:
    ours, _ = splits()
    found = fingerprint(ours)
    assert fingerprint(dataclasses.replace(ours, seed=7)) == found
    chosen = torch.arange(0, 1000, 3)
    assert fingerprint(Subset(ours, chosen)) == fingerprint(ours.select(chosen))

    class Bare:
        """Samples without `content`."""

        labels = ours.labels

        def __len__(self) -> int:
            return len(ours)

        def __getitem__(self, key: Any) -> Any:
            return ours[key]

    assert fingerprint(Bare()) == found | {"content": None}
    now = {"train": fingerprint(Bare()), "test": found}
    assert run_data.changes({"train": found, "test": found}, now) == {}
