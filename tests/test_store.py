"""`store` writes, refuses and explains; test_store_crashes.py interrupts it."""

import errno
import os
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rmploss import _disk, store
from rmploss._disk import Operation
from rmploss.errors import LockedError, StoreError


@pytest.fixture
def log() -> Iterator[list[Operation]]:
    operations: list[Operation] = []
    _disk.hooks.append(operations.append)
    yield operations
    _disk.hooks.remove(operations.append)


@pytest.fixture
def refuse() -> Iterator[Callable[[str, int], None]]:
    """Make all operations of one name fail with one error."""
    hooks: list[Callable[[Operation], None]] = []

    def start(name: str, code: int) -> None:
        def hook(operation: Operation) -> None:
            if operation.name == name:
                raise OSError(code, os.strerror(code))

        hooks.append(hook)
        _disk.hooks.append(hook)

    yield start
    for hook in hooks:
        _disk.hooks.remove(hook)


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A living process of another program."""
    with subprocess.Popen(
        [sys.executable, "-c", "import sys; sys.stdin.read()"], stdin=subprocess.PIPE
    ) as process:
        yield process


def start_child(action: Callable[[], None]) -> int:
    """Start an action in a forked child, which exits with 0 if it raises nothing."""
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return child


def in_child(action: Callable[[], None]) -> int:
    """The exit code of an action in a forked child: 0 if it raised nothing."""
    return os.waitstatus_to_exitcode(os.waitpid(start_child(action), 0)[1])


forks = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def test_write_bytes_makes_and_replaces(tmp_path: Path) -> None:
    for data in (b"", b"first\r\n", bytes(range(256)) * 5000):
        store.write_bytes(tmp_path / "a", data)
        assert (tmp_path / "a").read_bytes() == data
    store.write_text(tmp_path / "b", "λ(n)\n")
    assert (tmp_path / "b").read_bytes() == "λ(n)\n".encode()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b"]


def test_write_bytes_replaces_a_link_and_not_what_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"keep")
    (tmp_path / "link").symlink_to(tmp_path / "outside")
    store.write_bytes(tmp_path / "link", b"new")
    assert (tmp_path / "outside").read_bytes() == b"keep"
    assert (tmp_path / "link").read_bytes() == b"new"


def test_a_link_put_in_the_way_of_a_temporary_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"keep")

    def intrude(operation: Operation) -> None:
        if operation.name == "create":
            operation.path.symlink_to(tmp_path / "outside")

    _disk.hooks.append(intrude)
    with pytest.raises(StoreError):
        store.write_bytes(tmp_path / "a", b"new")
    _disk.hooks.remove(intrude)
    assert (tmp_path / "outside").read_bytes() == b"keep"
    assert [path.name for path in tmp_path.iterdir()] == ["outside"]


def test_write_folder_is_the_protocol(tmp_path: Path, log: list[Operation]) -> None:
    store.write_folder(tmp_path / "step", {"state": b"s", "manifest": b"m"})
    temporary = f".tmp-{os.getpid()}s{store._began(os.getpid())}-step"
    assert [(o.name, o.path.relative_to(tmp_path.parent).as_posix()) for o in log] == [
        (name, f"{tmp_path.name}/{path}".rstrip("/"))
        for name, path in [
            ("remove", temporary),
            ("mkdir", temporary),
            ("sync", ""),
            ("create", f"{temporary}/state"),
            ("append", f"{temporary}/state"),
            ("fsync", f"{temporary}/state"),
            ("create", f"{temporary}/manifest"),
            ("append", f"{temporary}/manifest"),
            ("fsync", f"{temporary}/manifest"),
            ("sync", temporary),
            ("rename", temporary),
            ("sync", ""),
        ]
    ]
    assert {path.name for path in (tmp_path / "step").iterdir()} == {"state", "manifest"}


@pytest.mark.parametrize("taken", ["folder", "empty folder", "file", "dangling link"])
def test_write_folder_refuses_a_name_that_is_taken(tmp_path: Path, taken: str) -> None:
    path = tmp_path / "step"
    if "folder" in taken:
        path.mkdir()
    if taken == "folder":
        (path / "kept").write_bytes(b"kept")
    if taken == "file":
        path.write_bytes(b"kept")
    if taken == "dangling link":
        path.symlink_to(tmp_path / "nowhere")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(StoreError, match="something has this name already"):
        store.write_folder(path, {"state": b"s"})
    assert sorted(tmp_path.rglob("*")) == before


@forks
def test_updates_of_several_processes_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a"

    def add(letter: bytes) -> None:
        for _ in range(5):
            store.update(path, lambda: (path.read_bytes() if path.exists() else b"") + letter)

    letters = [b"abc"[i : i + 1] for i in range(3)]
    children = [start_child(lambda letter=letter: add(letter)) for letter in letters]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0] * 3
    assert sorted(path.read_bytes()) == sorted(b"abc" * 5)
    assert sorted(file.name for file in tmp_path.iterdir()) == [".lock-a", "a"]


def test_an_update_waits_for_another_and_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "PATIENCE_S", 0.1)

    def other() -> bytes:
        with pytest.raises(LockedError, match=f"owned by process {os.getpid()}"):
            store.update(tmp_path / "a", lambda: b"lost")
        return b"kept"

    store.update(tmp_path / "a", other)
    assert (tmp_path / "a").read_bytes() == b"kept"


def test_an_update_that_fails_changes_nothing_and_ends_its_lock(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")

    def fail() -> bytes:
        raise FileNotFoundError

    with pytest.raises(FileNotFoundError):
        store.update(tmp_path / "a", fail)
    assert (tmp_path / "a").read_bytes() == b"old"
    store.update(tmp_path / "a", lambda: b"new")


def test_append_adds_to_the_end(tmp_path: Path, log: list[Operation]) -> None:
    for line in ("one", "", "λ"):
        store.append_line(tmp_path / "lines", line)
    assert (tmp_path / "lines").read_bytes() == "one\n\nλ\n".encode()
    assert [o.name for o in log] == ["create", "append", "fsync", "sync", *["append", "fsync"] * 2]
    with pytest.raises(ValueError, match="line end"):
        store.append_line(tmp_path / "lines", "two\nlines")


def test_append_does_not_follow_a_link(tmp_path: Path) -> None:
    (tmp_path / "outside").write_bytes(b"keep")
    (tmp_path / "lines").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="symbolic link"):
        store.append_line(tmp_path / "lines", "more")
    assert (tmp_path / "outside").read_bytes() == b"keep"


@forks
@pytest.mark.parametrize("read", [False, True])
def test_append_does_not_wait_for_a_pipe(read: bool, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "lines")
    reader = os.open(tmp_path / "lines", os.O_RDONLY | os.O_NONBLOCK) if read else None
    try:
        with pytest.raises(StoreError, match="a pipe is where a file should be"):
            store.append_line(tmp_path / "lines", "text")
    finally:
        if reader is not None:
            os.close(reader)


def test_a_file_at_its_size_limit_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "lines").write_bytes(b"x" * 90)

    def action() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        with pytest.raises(StoreError, match=r"ulimit -f") as caught:
            store.append(tmp_path / "lines", b"y" * 20)  # 10 bytes fit: a short write.
        assert "20 bytes needed" in str(caught.value)
        with pytest.raises(StoreError, match="ulimit -f"):
            store.write_bytes(tmp_path / "lines", b"z" * 200)

    assert in_child(action) == 0
    assert (tmp_path / "lines").read_bytes() == b"x" * 90
    assert [path.name for path in tmp_path.iterdir()] == ["lines"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_reported_with_what_is_needed() -> None:
    with pytest.raises(StoreError) as caught:
        store.append(Path("/dev/full"), b"x" * 12_345)
    assert caught.value.exit_code == 5
    assert "cannot write /dev/full" in str(caught.value)
    assert "No space left on device (12,345 bytes needed," in str(caught.value)
    assert "free some space" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.EACCES, "you may write to"),
        (errno.EROFS, "read-only"),
        (errno.EDQUOT, "quota"),
        (errno.EIO, "the disk fails"),
        (errno.EMFILE, "Too many open files"),
    ],
)
def test_other_refusals_are_reported_with_what_to_do(
    tmp_path: Path, refuse: Callable[[str, int], None], code: int, advice: str
) -> None:
    refuse("create", code)
    with pytest.raises(StoreError, match=advice):
        store.write_bytes(tmp_path / "a", b"x")
    assert not list(tmp_path.iterdir())


WRITES: dict[str, Callable[[Path], object]] = {
    "write_bytes": lambda path: store.write_bytes(path / "a", b"new"),
    "append": lambda path: store.append(path / "a", b"new"),
    "append to a new file": lambda path: store.append(path / "b", b"new"),
    "write_folder": lambda path: store.write_folder(path / "c", {"x": b"1", "y": b"2"}),
    "make_folder": lambda path: store.make_folder(path / "d" / "e"),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=list(WRITES))
def test_a_failed_fsync_is_not_tried_again(
    write: Callable[[Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second fsync of a file succeeds, although the kernel has dropped its pages."""
    synced: list[int] = []
    failing = -1  # none
    fsync = os.fsync

    def fail_once(file: int) -> None:
        synced.append(os.fstat(file).st_ino)
        if len(synced) == failing + 1:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        fsync(file)

    monkeypatch.setattr(os, "fsync", fail_once)
    write(_folder(tmp_path / "unbroken"))
    count = len(synced)
    assert count > 0
    for failing in range(count):
        folder = _folder(tmp_path / f"{failing}")
        synced.clear()
        with pytest.raises(StoreError, match="the disk fails"):
            write(folder)
        assert synced[failing] not in synced[failing + 1 :]
        assert (folder / "a").read_bytes() == b"old" or write is WRITES["write_bytes"]
        assert not list(folder.glob(".tmp-*"))


def _folder(path: Path) -> Path:
    path.mkdir()
    (path / "a").write_bytes(b"old")
    return path


@pytest.mark.parametrize("name", ["missing/a", "file/a", "n" * 300])
def test_impossible_places_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_bytes(b"kept")
    with pytest.raises(StoreError, match="cannot write"):
        store.write_bytes(tmp_path / name, b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_truncate_lines_keeps_whole_good_lines(tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"good 1\n\x00\x00\ngood \xff\nbad\ngood 2\ngood, but half")
    assert store.truncate_lines(path, lambda line: line.startswith("good")) == 4
    assert path.read_bytes() == b"good 1\ngood 2\n"
    path.write_bytes(b"good 1\ngood, but half")
    assert store.truncate_lines(path, lambda _: True) == 1
    assert path.read_bytes() == b"good 1\n"


def test_truncate_lines_leaves_a_sound_file_alone(tmp_path: Path, log: list[Operation]) -> None:
    (tmp_path / "lines").write_bytes("a\u2028b\n\x0b\n".encode())  # One line each, as for a reader.
    assert store.truncate_lines(tmp_path / "lines", lambda _: True) == 0
    assert not log


def test_make_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(2):
        store.make_folder(tmp_path / "a" / "b" / "c")
    assert (tmp_path / "a" / "b" / "c").is_dir()
    monkeypatch.chdir(tmp_path)
    store.make_folder(Path("relative/one"))
    assert (tmp_path / "relative" / "one").is_dir()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StoreError, match="move it away"):
            store.make_folder(path)


def test_remove_and_remove_tree(tmp_path: Path) -> None:
    store.make_folder(tmp_path / "outside")
    store.write_bytes(tmp_path / "outside" / "kept", b"kept")
    store.write_folder(tmp_path / "step", {"a": b"a"})
    store.make_folder(tmp_path / "step" / "deep")
    (tmp_path / "step" / "deep" / "link").symlink_to(tmp_path / "outside")
    with pytest.raises(StoreError, match="a folder is where a file should be"):
        store.remove(tmp_path / "step")
    for _ in range(2):
        store.remove_tree(tmp_path / "step")
        store.remove(tmp_path / "nothing")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["kept", "outside"]


def test_clean_temporaries_of_the_dead_and_not_of_the_living(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    mine, living = os.getpid(), sleeper.pid
    for pid in (dead.pid, mine, living, 10**30):
        (tmp_path / f".tmp-{pid}-step").mkdir()
        (tmp_path / f".tmp-{pid}-step" / "state").write_bytes(b"half")
    (tmp_path / ".tmp-file").write_bytes(b"not one of ours")
    with pytest.raises(LockedError, match=rf"written by process {living}"):
        store.clean_temporaries(tmp_path)
    assert (tmp_path / f".tmp-{dead.pid}-step" / "state").exists()
    sleeper.kill()
    sleeper.wait()
    store.clean_temporaries(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-file"]


@pytest.mark.skipif(
    sys.platform != "linux", reason="the start of a process is known on Linux alone"
)
def test_a_number_that_another_process_got_is_of_a_dead_one(
    tmp_path: Path, sleeper: subprocess.Popen[bytes]
) -> None:
    began = store._began(sleeper.pid)
    assert len(began) == 8
    assert began != store._began(os.getpid())
    for name in (
        f".tmp-{sleeper.pid}s00000000-a",
        f".tmp-{sleeper.pid}s00000000.{store._machine()}-b",
    ):
        (tmp_path / name).mkdir()
    store.clean_shared(tmp_path)
    store.clean_temporaries(tmp_path)
    assert not [*tmp_path.iterdir()]
    (tmp_path / f".tmp-{sleeper.pid}s{began}-a").mkdir()
    with pytest.raises(LockedError, match=f"written by process {sleeper.pid}"):
        store.clean_temporaries(tmp_path)


@forks
def test_a_temporary_of_a_killed_process_names_its_start(tmp_path: Path) -> None:
    def die(operation: Operation) -> None:
        if operation.name == "rename":
            os.kill(os.getpid(), signal.SIGKILL)

    def write() -> None:
        _disk.hooks.append(die)
        store.write_bytes(tmp_path / "a", b"half")

    assert in_child(write) == -signal.SIGKILL
    assert re.fullmatch(r"\.tmp-\d+(s[0-9a-f]{8})?-a", next(tmp_path.iterdir()).name)
    store.clean_temporaries(tmp_path)
    assert not [*tmp_path.iterdir()]


def test_a_process_of_somebody_else_is_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    (tmp_path / ".tmp-1-step").mkdir()
    with pytest.raises(LockedError, match="written by process 1"):
        store.clean_temporaries(tmp_path)


HOLD = """
import sys; from pathlib import Path; from rmploss import store
with store.lock(Path(sys.argv[1])):
    print("held", flush=True); sys.stdin.readline()
"""


def test_lock_names_its_owner_and_ends_with_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        assert owner.stdout
        assert owner.stdout.readline() == b"held\n"
        with pytest.raises(LockedError) as caught, store.lock(tmp_path):
            pass
        assert f"process {owner.pid} on {socket.gethostname()}" in str(caught.value)
        assert f"kill {owner.pid}" in str(caught.value)
        owner.kill()
    for _ in range(2):
        with store.lock(tmp_path), pytest.raises(LockedError), store.lock(tmp_path):
            pass


@forks
def test_a_worker_that_outlives_its_parent_does_not_hold_the_lock(tmp_path: Path) -> None:
    """As a loader's worker does for some seconds after its parent was killed."""
    reader, writer = os.pipe()

    def trainer() -> None:
        with store.lock(tmp_path):
            if os.fork() == 0:
                os.close(writer)
                os.read(reader, 1)  # Until the test closes its end.
                os._exit(0)
            os.kill(os.getpid(), signal.SIGKILL)

    try:
        assert in_child(trainer) == -signal.SIGKILL
        with store.lock(tmp_path):
            pass
    finally:
        os.close(reader)
        os.close(writer)


def test_an_error_inside_a_lock_is_not_told_as_one_of_the_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), store.lock(tmp_path):
        (tmp_path / "missing").read_bytes()
    with pytest.raises(StoreError, match="cannot lock"), store.lock(tmp_path / "missing"):
        pass
