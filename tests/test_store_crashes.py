"""Every function of `store` is interrupted at every change: by SIGKILL, by an error of the disk, by
a loss of power. The disk must then hold the complete old content or the complete new one.
"""

import errno
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from rmploss import _disk, store
from rmploss._disk import Operation
from rmploss.errors import StoreError

Disk = dict[str, bytes]


@dataclass(frozen=True)
class Scenario:
    """A folder's files, what is done to them, and the steps in between that are whole as well.

    removes: an error may leave a temporary, of what was to be removed.
    """

    before: Disk
    action: Callable[[Path], object]
    between: tuple[Disk, ...] = ()
    removes: bool = False


def replace_oldest_checkpoint(folder: Path) -> None:
    store.write_folder(folder / "step-3", {"state": b"3" * 5000, "manifest": b"m3"})
    store.remove_tree(folder / "step-1")


def step(n: int) -> Disk:
    return {f"step-{n}/state": b"%d" % n * 5000, f"step-{n}/manifest": b"m%d" % n}


SCENARIOS = {
    "write_bytes, new": Scenario({}, lambda f: store.write_bytes(f / "a", b"new" * 2000)),
    "write_bytes": Scenario(
        {"a": b"old" * 999}, lambda f: store.write_bytes(f / "a", b"new" * 2000)
    ),
    "write_folder": Scenario(
        {}, lambda f: store.write_folder(f / "step-2", {"state": b"2" * 5000, "manifest": b"m2"})
    ),
    "update": Scenario(
        {"a": b"old" * 999},
        lambda f: store.update(f / "a", lambda: (f / "a").read_bytes() + b"new" * 2000),
    ),
    "append_line": Scenario(
        {"lines": b"old\n"}, lambda f: store.append_line(f / "lines", "new" * 100)
    ),
    "truncate_lines": Scenario(
        {"lines": b"good\nbad\nhalf"},
        lambda f: store.truncate_lines(f / "lines", lambda line: line == "good"),
    ),
    "rename": Scenario(step(1), lambda f: store.rename(f / "step-1", f / "step-1.corrupt")),
    "remove_tree": Scenario(step(1), lambda f: store.remove_tree(f / "step-1"), removes=True),
    "checkpoint": Scenario(
        step(1) | step(2),
        replace_oldest_checkpoint,
        between=(step(1) | step(2) | step(3),),
        removes=True,
    ),
}


@pytest.fixture(params=SCENARIOS)
def scenario(request: pytest.FixtureRequest) -> Scenario:
    return SCENARIOS[request.param]


@contextmanager
def hooked(hook: Callable[[Operation], None]) -> Iterator[None]:
    _disk.hooks.append(hook)
    try:
        yield
    finally:
        _disk.hooks.remove(hook)


def at(index: int, do: Callable[[], None]) -> Callable[[Operation], None]:
    """A hook that does something just before the change of this index."""
    passed = count()

    def hook(_: Operation) -> None:
        if next(passed) == index:
            do()

    return hook


def prepare(folder: Path, scenario: Scenario) -> Path:
    folder.mkdir()
    for name, data in scenario.before.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def mended(disk: Disk) -> Disk:
    """The content for a reader: without temporaries, locks and an incomplete last line."""
    return {
        name: data[: data.rfind(b"\n") + 1] if name == "lines" else data
        for name, data in disk.items()
        if ".tmp-" not in name and ".lock-" not in name
    }


def read(folder: Path) -> Disk:
    files = (path for path in folder.rglob("*") if path.is_file())
    return mended({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})


def undisturbed(scenario: Scenario, folder: Path) -> tuple[list[Disk], list[Operation]]:
    """What may be found (the old content, the new, the steps in between) and all the changes."""
    log: list[Operation] = []
    prepare(folder, scenario)
    with hooked(log.append):
        scenario.action(folder)
    assert read(folder) != mended(scenario.before)
    return [mended(scenario.before), *scenario.between, read(folder)], log


def dies(action: Callable[[], object], hook: Callable[[Operation], None]) -> bool:
    """Run an action in a forked child; True if it was killed. Its failure fails the test."""
    child = os.fork()
    if child == 0:
        try:
            with hooked(hook):
                action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL)
    return status != 0


# Python warns of forks beside threads, which native libraries may have started; this child makes
# nothing but system calls.
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_kill_before_every_change(scenario: Scenario, tmp_path: Path) -> None:
    whole, log = undisturbed(scenario, tmp_path / "undisturbed")
    for index in range(len(log)):
        folder = prepare(tmp_path / str(index), scenario)
        kill = at(index, lambda: os.kill(os.getpid(), signal.SIGKILL))
        assert dies(lambda folder=folder: scenario.action(folder), kill)
        assert read(folder) in whole
        store.clean_temporaries(folder)
        assert not list(folder.glob(".tmp-*"))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_error_at_every_change(scenario: Scenario, tmp_path: Path, code: int) -> None:
    whole, log = undisturbed(scenario, tmp_path / "undisturbed")

    def fail() -> None:
        raise OSError(code, os.strerror(code))

    for index in range(len(log)):
        folder = prepare(tmp_path / str(index), scenario)
        with pytest.raises(StoreError, match=os.strerror(code)), hooked(at(index, fail)):
            scenario.action(folder)
        assert read(folder) in whole
        assert scenario.removes or not list(folder.glob(".tmp-*"))


def test_loss_of_power_after_every_change(scenario: Scenario, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    whole, log = undisturbed(scenario, folder)
    for length in range(len(log)):
        for disk in disks_without_power(scenario.before, log[:length], folder):
            assert mended(disk) in whole
    for disk in disks_without_power(scenario.before, log, folder):
        assert mended(disk) == whole[-1]


def disks_without_power(before: Disk, log: list[Operation], folder: Path) -> Iterator[Disk]:
    """Every disk that a loss of power after these changes may leave.

    Names: those before the last sync are sure, and any number of the later ones, in their order,
    may have arrived. Contents: what had no fsync is there, half there, zero or absent. Entries of a
    folder that was not synced itself may be missing.
    """
    serial = count()
    contents: dict[int, bytes] = {}
    sure: dict[int, int] = {}
    unlisted: set[int] = set()
    names: dict[Path, int] = {}
    for name, data in before.items():
        names[folder / name] = file = next(serial)
        contents[file], sure[file] = data, len(data)
    history, synced = [dict(names)], 0
    for name, path, data, target in log:
        if name == "create":
            names[path] = file = next(serial)
            contents[file], sure[file] = b"", 0
            unlisted.add(file)
        elif name == "append":
            contents[names[path]] += data
        elif name == "fsync":
            sure[names[path]] = len(contents[names[path]])
        elif name == "remove":
            names.pop(path, None)
        elif name == "sync":
            synced = len(history)
            unlisted -= {file for place, file in names.items() if place.parent == path}
        elif name == "rename":
            assert target
            unlisted.discard(names.get(path, -1))  # Both names are of one folder: in their order.
            moved = {
                target / place.relative_to(path): file
                for place, file in names.items()
                if place.is_relative_to(path)
            }
            names = {p: f for p, f in names.items() if not p.is_relative_to(path)} | moved
        history.append(dict(names))
    for names in history[synced:]:
        for missing in (set(), unlisted):
            for damage in DAMAGES:
                yield {
                    path.relative_to(folder).as_posix(): contents[file][: sure[file]]
                    + damage(contents[file][sure[file] :])
                    for path, file in names.items()
                    if file not in missing
                }


DAMAGES: tuple[Callable[[bytes], bytes], ...] = (
    lambda data: data,
    lambda data: data[: len(data) // 2],
    lambda data: bytes(len(data)),
    lambda _: b"",
)
