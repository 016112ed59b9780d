"""Forks: a new run from the newest checkpoint of another one, with a changed recipe."""

import shutil
from pathlib import Path

import pytest
import torch

from rmploss.engine import checkpoint
from rmploss.engine.checkpoint import Loaded
from rmploss.engine.execution import Execution
from rmploss.engine.fork import Fork, find_source
from rmploss.engine.listener import Listener
from rmploss.engine.optimizers import Position, learning_rate
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.engine.verify import verify
from rmploss.errors import CheckpointError, UserError
from rmploss.recipes import Recipe, use
from rmploss.report.read import read
from rmploss.report.tables import damaged_runs
from tests.engine.runs import TINY, digest_of
from tests.engine.test_go_on import Dying

CONSTANT = TINY.but(lr_schedule=use("constant"), objective=use("none"))


class Notes(Listener):
    """Keeps the remarks."""

    def __init__(self) -> None:
        self.text: list[str] = []

    def note(self, text: str) -> None:
        self.text.append(text)


def loaded(path: Path, step: int) -> Loaded:
    hashed = RunFolder.open(path).recipe_hash
    return checkpoint.load_step(path, step, recipe_hash=hashed)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of one epoch at a constant rate."""
    return train(CONSTANT.but(epochs=1), tmp_path_factory.mktemp("source"))


def test_a_lengthened_run_is_the_longer_run(source: Path, tmp_path: Path) -> None:
    """With a constant rate and no regularizer nothing depends on the length."""
    before = {path: path.read_bytes() for path in source.rglob("*") if path.is_file()}
    fork, whole = train(CONSTANT, tmp_path / "fork", fork=source), train(CONSTANT, tmp_path)
    ours, theirs = loaded(fork, 8), loaded(whole, 8)
    for part in ("model_state", "extra"):
        for name, tensor in getattr(ours, part).items():
            assert torch.equal(tensor, getattr(theirs, part)[name]), name
    for name, tensor in ours.optimizer_state.tensors.items():
        assert torch.equal(tensor, theirs.optimizer_state.tensors[name]), name
    assert [record["epoch"] for record in RunFolder.open(fork).metrics()] == [2]
    assert {path: path.read_bytes() for path in source.rglob("*") if path.is_file()} == before


def test_rate_and_length_are_those_of_the_new_recipe_and_recorded(
    source: Path, tmp_path: Path
) -> None:
    shown = Notes()
    recipe = CONSTANT.but(epochs=4, lr=0.025, lr_schedule=use("onecycle"))
    path = train(recipe, tmp_path, listener=shown, fork=source)
    rates = [learning_rate(0.025, use("onecycle"), Position(n, 4, 3, 4)) for n in (1, 2, 3)]
    assert [record["lr"] for record in RunFolder.open(path).metrics()] == rates
    (event,) = [e for e in RunFolder.open(path).events() if e["event"] == "fork"]
    assert event["differences"]["lr"] == "0.1 is now 0.025"
    assert event["differences"]["epochs"] == "1 is now 4"
    assert event["next_lr"] == learning_rate(0.025, use("onecycle"), Position(1, 4, 0, 4))
    assert (event["run"], event["epoch"], event["step"]) == (str(source), 1, 4)
    assert "  lr: 0.1 is now 0.025" in shown.text
    assert verify(path).damages == []
    (path / "manifest.json").unlink()  # without it, lines per epoch are counted from the fork on
    assert [d.file for d in verify(path).damages] == ["manifest.json"]
    assert any(e.get("event") == "fork" for e in read(path).events)
    assert [p for p in damaged_runs(tmp_path) if "metrics" in p.where] == []


def test_within_an_epoch_equal_batches_go_on_and_others_begin_again(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(CONSTANT, tmp_path / "a", Execution(save_minutes=0), Dying(epoch=1, done=3))
    (broken,) = (tmp_path / "a").iterdir()
    same = train(CONSTANT, tmp_path / "b", fork=broken)
    assert digest_of(same) == digest_of(resume(broken))
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(CONSTANT, tmp_path / "c", Execution(save_minutes=0), Dying(epoch=1, done=3))
    (broken,) = (tmp_path / "c").iterdir()
    shown = Notes()
    other = train(CONSTANT.but(batch_size=64), tmp_path / "d", listener=shown, fork=broken)
    assert any("begins again" in text for text in shown.text)
    assert [r["step"] for r in RunFolder.open(other).metrics()] == [2 + 2, 2 + 4]


def test_another_optimizer_begins_with_no_memory_and_its_own_numbers(
    source: Path, tmp_path: Path
) -> None:
    recipe = CONSTANT.but(optimizer=use("adam"), lr=1e-3)
    path = train(recipe, tmp_path / "adam", fork=source)
    kept = loaded(path, 4).optimizer_state
    assert not any(name.endswith("momentum_buffer") for name in kept.tensors)
    assert all(not tensor.any() for tensor in kept.tensors.values())
    recipe = CONSTANT.but(optimizer=use("sgd", momentum=0.5), weight_decay=0.25)
    path = train(recipe, tmp_path / "sgd", fork=source)
    kept, theirs = loaded(path, 4).optimizer_state, loaded(source, 4).optimizer_state
    assert (kept.groups[0]["momentum"], kept.groups[0]["weight_decay"]) == (0.5, 0.25)
    assert all(torch.equal(kept.tensors[name], theirs.tensors[name]) for name in theirs.tensors)


def test_an_average_that_the_source_lacks_begins_with_its_weights(
    source: Path, tmp_path: Path
) -> None:
    path = train(CONSTANT.but(average=use("ema")), tmp_path, fork=source)
    begun, theirs = loaded(path, 4), loaded(source, 4).model_state
    assert all(torch.equal(begun.extra[f"average/{name}"], theirs[name]) for name in theirs)


def test_what_cannot_be_forked_is_refused_before_a_folder_is_made(
    source: Path, tmp_path: Path
) -> None:
    for recipe, message in (
        (CONSTANT.but(epochs=1), "has done 1 epochs, the new run would have 1"),
        (CONSTANT.but(network=CONSTANT.network.but(width=0.25)), "network.width: a fork keeps"),
        (CONSTANT.but(neuron=use("plif")), "is absent in RUN"),
    ):
        with pytest.raises(UserError, match=message):
            train(recipe, tmp_path / "runs", fork=source)
    with pytest.raises(UserError, match="not a run"):
        train(CONSTANT, tmp_path / "runs", fork=tmp_path)
    assert not (tmp_path / "runs").exists()


def test_a_damaged_source_is_told(source: Path, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "x", CONSTANT.to_json(), command=[])
    with pytest.raises(CheckpointError, match="no checkpoint"):
        train(CONSTANT, tmp_path, fork=folder.path)


def test_a_source_that_goes_on_meanwhile_may_remove_the_checkpoint(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that trains on keeps its two newest: while a fork makes its network, others go."""
    running = tmp_path / "running"
    shutil.copytree(source, running)

    def then_removed(path: Path, recipe: Recipe) -> Fork:
        found = find_source(path, recipe)
        shutil.rmtree(found.loaded.path)
        return found

    monkeypatch.setattr("rmploss.engine.train.find_source", then_removed)
    path = train(CONSTANT, tmp_path / "forks", fork=running)
    (event,) = [e for e in RunFolder.open(path).events() if e["event"] == "fork"]
    assert event["sha256"] == loaded(source, 4).sha256


def test_a_fork_whose_epochs_left_have_no_weight_says_so(source: Path, tmp_path: Path) -> None:
    """Eq. 12 is 0 at n = N: of two epochs the first is done, and the last has none."""
    notes = Notes()
    recipe = CONSTANT.but(objective=use("rmp", k=0.1), epochs=2)
    train(recipe, tmp_path / "last", listener=notes, fork=source)
    (said,) = [text for text in notes.text if "has no effect" in text]
    assert "lambda(n) = 0 in the epochs n that are left of 2" in said
    more = Notes()
    train(recipe.but(epochs=3), tmp_path / "more", listener=more, fork=source)
    assert not [text for text in more.text if "has no effect" in text]
