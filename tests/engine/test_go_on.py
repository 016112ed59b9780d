"""Runs that go on: checkpoints by the clock, `--resume auto`, `--name`."""

import math
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from rmploss.engine import checkpoint, save_clock
from rmploss.engine.execution import Execution
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.save_clock import SaveClock
from rmploss.engine.train import resume, train
from rmploss.errors import CheckpointError, LockedError, UserError
from tests.engine.children import be_rank, finish, free_port, pipe, start
from tests.engine.runs import TINY, digest_of

EVERY_STEP = Execution(save_minutes=0)


class Dying(Listener):
    """Raises after one batch, as if the machine failed; keeps the names of the checkpoints."""

    def __init__(self, epoch: int, done: int) -> None:
        self.at = ("train", epoch, done)

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        if (phase, epoch, done) == self.at:
            raise RuntimeError("the machine failed")


def test_the_clock_is_due_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(save_clock.time, "monotonic", lambda: now)
    clock = SaveClock(540)
    now = 639.9
    assert not clock.due()
    now = 640.0
    assert clock.due()
    clock.restart()
    assert not clock.due()
    assert not SaveClock(math.inf).due()


@pytest.mark.parametrize("minutes", [-1.0, math.nan])
def test_no_time_is_refused(minutes: float) -> None:
    with pytest.raises(UserError, match="save_minutes must be >= 0"):
        Execution(save_minutes=minutes)


def test_checkpoints_by_the_clock_lose_a_step_at_most_and_change_nothing(tmp_path: Path) -> None:
    unbroken = train(TINY, tmp_path / "unbroken", Execution(save_minutes=math.inf))
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path, EVERY_STEP, Dying(epoch=2, done=3))
    (path,) = tmp_path.glob("digits*")
    loaded = checkpoint.load_latest(path, recipe_hash=RunFolder.open(path).recipe_hash)
    assert (loaded.counters.step, loaded.counters.batch) == (6, 2)
    resume(path, EVERY_STEP)
    assert digest_of(path) == digest_of(unbroken)


def one_clock(rank: int, port: str, runs: Path, answer: Connection) -> None:
    """A rank of a run in which only rank 0 has a clock that is ever due."""
    be_rank(rank, port)
    minutes = 0 if rank == 0 else math.inf
    path = train(TINY, runs, Execution(device="cpu", save_minutes=minutes))
    if rank == 0:
        answer.send_bytes(digest_of(path).encode())


def test_the_ranks_follow_the_clock_of_rank_0(tmp_path: Path) -> None:
    here, there = pipe()
    port = free_port()
    ranks = [start(one_clock, rank, port, tmp_path, there) for rank in range(2)]
    assert [finish(rank) for rank in ranks] == [0, 0]
    assert len(here.recv_bytes()) == 64
    (path,) = tmp_path.iterdir()
    names = [saved.name for saved in checkpoint.saved(path)]
    assert names[0] == "step-00000008-4"  # after its step, two batches of the test, the epoch


def test_what_has_begun_is_resumed_and_what_is_finished_stays(tmp_path: Path) -> None:
    unbroken = train(TINY, tmp_path / "unbroken")
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path / "runs", EVERY_STEP, Dying(epoch=1, done=3), or_resume=True)
    path = train(TINY, tmp_path / "runs", or_resume=True)
    assert [path] == [*(tmp_path / "runs").iterdir()]
    assert digest_of(path) == digest_of(unbroken)
    kinds = [event["event"] for event in RunFolder.open(path).events()]
    assert kinds.count("start") == kinds.count("resume") == 1
    before = (path / "events.jsonl").read_bytes()
    assert train(TINY, tmp_path / "runs", or_resume=True) == path
    assert (path / "events.jsonl").read_bytes() == before


def test_a_run_that_died_before_its_first_checkpoint_begins_again(tmp_path: Path) -> None:
    stored = TINY.to_json()
    folder = RunFolder.create(tmp_path, TINY.name, stored, command=["rmploss"], exactly="named")
    with pytest.raises(CheckpointError):
        resume(folder.path)
    path = train(TINY, tmp_path, name="named", or_resume=True)
    assert path == folder.path
    assert digest_of(path) == digest_of(train(TINY, tmp_path / "unbroken"))
    assert "begin again" in [event["event"] for event in folder.events()]


def test_a_run_that_only_seems_dead_is_left_alone(tmp_path: Path) -> None:
    """Two starts at once: the first has made the folder and saved nothing yet."""
    stored = TINY.to_json()
    folder = RunFolder.create(tmp_path, TINY.name, stored, command=[], exactly="named")
    before = (folder.path / "events.jsonl").read_bytes()
    with folder.lock(), pytest.raises(LockedError, match="is in use"):
        train(TINY, tmp_path, name="named", or_resume=True)
    assert (folder.path / "events.jsonl").read_bytes() == before


def test_a_run_that_another_process_began_meanwhile_is_not_begun_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of two starts decides, then opens its data; the first trains, and dies."""
    monkeypatch.setattr("rmploss.engine.train.way_of", lambda *_: "begin again")
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path, EVERY_STEP, Dying(epoch=2, done=3), name="named")
    path = tmp_path / "named"
    saved = [each.name for each in checkpoint.saved(path)]
    with pytest.raises(UserError, match="another process began it meanwhile"):
        train(TINY, tmp_path, name="named", or_resume=True)
    assert [each.name for each in checkpoint.saved(path)] == saved
    monkeypatch.undo()
    train(TINY, tmp_path, name="named", or_resume=True)
    assert digest_of(path) == digest_of(train(TINY, tmp_path / "unbroken"))


def test_a_folder_of_another_recipe_is_not_resumed(tmp_path: Path) -> None:
    train(TINY.but(epochs=1), tmp_path, name="named")
    with pytest.raises(UserError, match=r"named: epochs: 1 is now 2   another --name, or --fork"):
        train(TINY, tmp_path, name="named", or_resume=True)
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="not a run"):
        train(TINY, tmp_path, name="other", or_resume=True)


def test_a_name_is_given_once_and_must_be_safe(tmp_path: Path) -> None:
    stored = TINY.to_json()
    RunFolder.create(tmp_path, TINY.name, stored, command=[], exactly="named")
    with pytest.raises(UserError, match="the run folder exists"):
        train(TINY, tmp_path, name="named")
    with pytest.raises(UserError, match="the run folder exists"):
        RunFolder.create(tmp_path, TINY.name, stored, command=[], exactly="named")
    with pytest.raises(UserError, match="holds a path separator"):
        train(TINY, tmp_path, name="a/b")
    assert [path.name for path in tmp_path.iterdir()] == ["named"]


class Heard(Listener):
    """Keeps the notes."""

    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_run_that_could_go_on_is_named_before_another_begins(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path, EVERY_STEP, Dying(epoch=2, done=3))
    (path,) = tmp_path.iterdir()
    heard = Heard()
    train(TINY, tmp_path, listener=heard)
    fix = f"--resume auto (or --resume {path})"
    assert heard.notes[0] == f"note: {path} is not finished: {fix} goes on with it"
    heard = Heard()
    resume(path, EVERY_STEP, heard)
    assert "goes on in epoch 2, batch 2 of 4" in heard.notes
    heard = Heard()
    train(TINY, tmp_path, listener=heard)
    assert not any("not finished" in note for note in heard.notes)
