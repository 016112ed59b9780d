"""A disk that refuses once, for good, or is replaced while a run writes to it."""

import errno
import itertools
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rmploss import _disk, store
from rmploss._disk import Operation
from rmploss.engine import checkpoint
from rmploss.engine.journal import Journal
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.train import train
from rmploss.errors import StoreError
from tests.engine.children import check_sound, finish, start
from tests.engine.runs import TINY, digest_of, untimed_metrics

SHORT = TINY.but(train_samples=64, test_samples=32)
"""Two epochs of two steps."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without trouble."""
    return train(SHORT, tmp_path_factory.mktemp("unbroken"))


@contextmanager
def refusing(code: int, operation: str, part: str, times: int) -> Iterator[list[Operation]]:
    """Let the first changes of this kind, below a path with this part, fail; yields those."""
    refused: list[Operation] = []

    def hook(change: Operation) -> None:
        if len(refused) < times and change.name == operation and part in str(change.path):
            refused.append(change)
            raise OSError(code, os.strerror(code))

    _disk.hooks.append(hook)
    try:
        yield refused
    finally:
        _disk.hooks.remove(hook)


@pytest.mark.parametrize(
    ("operation", "part"),
    [
        ("mkdir", "runs"),
        ("append", "source.zip"),
        ("lock", ".lock"),
        ("mkdir", "ckpt"),
        ("append", "state.safetensors"),
        ("fsync", "manifest.json"),
        ("rename", "step-00000002"),
        ("sync", "ckpt"),
        ("create", "metrics.jsonl"),
        ("fsync", "metrics.jsonl"),
        ("append", "events.jsonl"),
        ("rename", "result.json"),
        ("append", "predictions.json"),
        ("append", "membrane.json"),
        ("fsync", "cost.json"),
    ],
)
def test_a_write_refused_once_costs_nothing(
    operation: str, part: str, unbroken: Path, tmp_path: Path
) -> None:
    code = errno.EIO if "sync" in operation else errno.ENOSPC
    with refusing(code, operation, part, times=1) as refused:
        path = train(SHORT, tmp_path / "runs")
    assert len(refused) == 1
    check_sound(path)
    assert digest_of(path) == digest_of(unbroken)
    assert untimed_metrics(path) == untimed_metrics(unbroken)
    events = [event["event"] for event in RunFolder.open(path).events()]
    assert [e for e in events if e not in ("waited", "health")] == ["start", "execute"]
    assert ("waited" in events) == ("metrics" in part)


@pytest.mark.parametrize("name", ["n-s0-", "step-00000002"])
def test_a_folder_whose_name_was_not_synced_is_taken_back(
    name: str, unbroken: Path, tmp_path: Path
) -> None:
    """Not left beside the one of the second try, as a run that nobody began."""
    renamed: list[Path] = []

    def hook(change: Operation) -> None:
        if change.name == "rename" and change.target and name in change.target.name:
            renamed.append(change.target.parent)
        if change.name == "sync" and renamed == [change.path]:
            renamed.append(change.path)
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    _disk.hooks.append(hook)
    try:
        path = train(SHORT.but(name="n"), tmp_path)
    finally:
        _disk.hooks.remove(hook)
    assert len(renamed) >= 3
    assert [path] == [*tmp_path.iterdir()]
    assert {saved.name for saved in checkpoint.saved(path)} == {"step-00000002", "step-00000004"}
    assert digest_of(path) == digest_of(unbroken)


def test_a_failed_fsync_is_never_repeated_on_its_file(
    unbroken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every fifth sync of a file fails: the kernel may have dropped its pages. A new file helps."""
    fsync, failed, files = os.fsync, dict[tuple[int, int], int](), 0

    def failing(file: int) -> None:
        nonlocal files
        status = os.fstat(file)
        number = (status.st_dev, status.st_ino)
        assert number not in failed, "synced again after EIO"
        if stat.S_ISREG(status.st_mode):
            files += 1
            if files % 5 == 0:
                failed[number] = os.dup(file)  # Kept open: no other file gets its number.
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(os, "fsync", failing)
    path = train(SHORT, tmp_path)
    for file in failed.values():
        os.close(file)
    assert len(failed) > 2
    assert digest_of(path) == digest_of(unbroken)


def test_a_checkpoint_refused_twice_ends_the_run(tmp_path: Path) -> None:
    with (
        refusing(errno.ENOSPC, "append", "step-00000002/", times=9) as refused,
        pytest.raises(StoreError, match="bytes needed") as caught,
    ):
        train(SHORT, tmp_path)
    assert (caught.value.exit_code, len(refused)) == (5, 2)
    (path,) = tmp_path.iterdir()
    assert [saved.name for saved in (path / "ckpt").iterdir()] == ["step-00000000"]
    assert len(RunFolder.open(path).metrics()) == 1


def test_a_refusal_that_cannot_pass_is_not_tried_again(tmp_path: Path) -> None:
    with (
        refusing(errno.EROFS, "append", "step-00000002/", times=9) as refused,
        pytest.raises(StoreError, match="read-only"),
    ):
        train(SHORT, tmp_path)
    assert len(refused) == 1


def test_lines_wait_in_order_and_are_read_as_if_written(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lines")
    journal.append("one")
    with refusing(errno.EIO, "fsync", "lines", times=2):
        for line in ("two", "three"):
            journal.append(line)
            assert journal.waiting
        assert journal.read() == b"one\ntwo\nthree\n"
        assert journal.path.read_bytes() == b"one\n"
        journal.append("four")
    assert not journal.waiting
    assert journal.path.read_bytes() == journal.read() == b"one\ntwo\nthree\nfour\n"
    with refusing(errno.EACCES, "append", "lines", times=1), pytest.raises(StoreError):
        journal.append("five")


def test_what_a_refused_line_left_in_the_file_is_not_kept(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "lines")
    journal.append("one")
    with refusing(errno.EIO, "fsync", "lines", 1), refusing(errno.EIO, "truncate", "lines", 1):
        journal.append("two")
    assert journal.path.read_bytes() == journal.read() == b"one\ntwo\n"
    journal.flush()
    assert journal.path.read_bytes() == b"one\ntwo\n"


def by_link(path: Path) -> None:
    """Move a folder, and leave a link to its new place."""
    path.rename(path.parent.parent / "moved")
    path.symlink_to(path.parent.parent / "moved")


def by_copy(path: Path) -> None:
    """Replace a folder by a copy of itself."""
    path.rename(path.with_name("moved"))
    shutil.copytree(path.with_name("moved"), path)


class Replacing(Listener):
    """Replaces the run folder, or a folder in it, in the first epoch."""

    def __init__(self, runs: Path, part: str, replace: Callable[[Path], object]) -> None:
        self.runs, self.part, self.replace = runs, part, replace
        self.before: dict[Path, bytes] = {}

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        if (phase, epoch, done) == ("train", 1, 1):
            (run,) = self.runs.iterdir()
            self.replace(run / self.part)
            self.before = content(self.runs.parent)


def content(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize(
    ("replace", "what"),
    [
        (by_link, "was replaced by a symbolic link"),
        (by_copy, "was replaced by another"),
        (shutil.rmtree, "was removed"),
    ],
)
@pytest.mark.parametrize("part", ["", "ckpt"])
def test_a_folder_replaced_meanwhile_is_noticed_and_not_written_to(
    part: str, replace: Callable[[Path], object], what: str, tmp_path: Path
) -> None:
    listener = Replacing(tmp_path / "runs", part, replace)
    with pytest.raises(StoreError, match=what) as caught:
        train(SHORT, tmp_path / "runs", listener=listener)
    assert caught.value.exit_code == 5
    after = content(tmp_path)
    written = {path for path in after if after[path] != listener.before.get(path)}
    allowed = {"metrics.jsonl"} if part else set()  # Its folder is the right one.
    assert {path.name for path in written} == allowed
    assert after.keys() >= listener.before.keys()


def test_a_run_folder_that_is_a_link_from_the_start_is_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "link").symlink_to(tmp_path / "elsewhere")
    with store.lock(tmp_path / "runs" / "link"):
        store.append_line(tmp_path / "runs" / "link" / "lines", "one")
        store.make_folder(tmp_path / "runs" / "link" / "ckpt")
        store.write_bytes(tmp_path / "runs" / "link" / "ckpt" / "file", b"x")
    assert (tmp_path / "elsewhere" / "ckpt" / "file").exists()


def create(runs: Path) -> Path:
    return RunFolder.create(runs, "n", {"seed": 0}, command=["rmploss"]).path


def create_and_die(runs: Path) -> None:
    def die(operation: Operation) -> None:
        if operation.name == "append" and operation.path.name == "source.zip":
            os.kill(os.getpid(), signal.SIGKILL)

    _disk.hooks.append(die)
    create(runs)


def test_what_a_killed_process_left_beside_the_runs_is_removed(tmp_path: Path) -> None:
    assert finish(start(create_and_die, tmp_path)) == -signal.SIGKILL
    (left,) = tmp_path.iterdir()
    pid = "".join(itertools.takewhile(str.isdigit, left.name.removeprefix(".tmp-")))
    kept = {f".tmp-{pid}.00000000-n-s0", f".tmp-{os.getppid()}-n-s0", ".tmp-notes"}
    for name in (*kept, f".tmp-{pid}-n-s0"):
        (tmp_path / name).mkdir()
    path = create(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == kept | {path.name}


def test_starts_at_the_same_moment_get_names_of_their_own(tmp_path: Path) -> None:
    """Another process takes the name between the look for a free one and the rename."""
    first = create(tmp_path)
    taken = first.with_name(f"{first.name}-2")

    def intrude(operation: Operation) -> None:
        if operation.name == "rename" and operation.target == taken and not taken.exists():
            shutil.copytree(first, taken)

    _disk.hooks.append(intrude)
    try:
        assert create(tmp_path).name == f"{first.name}-3"
    finally:
        _disk.hooks.remove(intrude)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_place_that_cannot_be_written_is_told_before_the_data_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rmploss.engine.loop.open_splits", lambda *_: pytest.fail("data opened"))
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="move it away"):
        train(SHORT, tmp_path / "file" / "runs")
    with refusing(errno.EROFS, "mkdir", "", times=1), pytest.raises(StoreError, match="read-only"):
        train(SHORT, tmp_path / "new" / "runs")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_old_checkpoint_that_cannot_be_removed_is_removed_with_the_next(tmp_path: Path) -> None:
    with refusing(errno.EIO, "rename", "ckpt/step-00000000", times=1) as refused:
        path = train(SHORT.but(epochs=4), tmp_path)
    assert len(refused) == 1
    assert len(checkpoint.saved(path)) <= 3  # the newest two and the best
