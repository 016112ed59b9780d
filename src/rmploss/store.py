"""Durable, atomic writes: the only module of rmploss that opens a file for writing.

When a function returns, its changes survive the death of the process and of the machine. If it is
interrupted at any point, a reader finds the complete old content or the complete new one.

    a file      temporary beside it -> fsync -> rename over the old one -> sync the folder
    a folder    temporary beside it, each file with fsync, the manifest last -> sync the temporary
                -> rename -> sync the parent
    a line      one append of the whole line -> fsync; `truncate_lines` drops an incomplete one
    a change    lock `.lock-<name>` -> read -> write as a file; other processes wait (`update`)

Temporaries are named `.tmp-<process>-<name>`, and a process `<number>s<start>`, since its number is
given again (`_began`). An OSError of the disk becomes a `StoreError`. A
refusal that can pass (a full disk, EIO) is worth a second try of the whole write: `try_twice`.
Inside `lock`, a folder that was removed or replaced since is never written to.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from rmploss import _disk, _watched
from rmploss.errors import LockedError, Problem, StoreError

PAUSE_S = 1.0
"""The seconds between the two tries of a write."""
PATIENCE_S, LOOK_S = 60.0, 0.02
"""The seconds that `update` waits for another process, and between two looks."""
Result = TypeVar("Result")


def try_twice(write: Callable[[], Result]) -> Result:
    """Call `write`, and once more if the disk refused it for a reason that can pass.

    write: raises `StoreError`. It makes its files anew in each call, because an fsync that failed
        must not be repeated on the same file: the kernel may have dropped the data already.
    """
    try:
        return write()
    except StoreError as error:
        if not can_pass(error):
            raise
    time.sleep(PAUSE_S)
    return write()


def can_pass(error: StoreError) -> bool:
    """True if the disk may accept the same write later: it was full, or an access failed."""
    return _number(error) in _PASSING


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file atomically."""
    temporary = _temporary(path)
    with _translate_errors("write", path, len(data)), _remove_on_error(temporary):
        _disk.create(temporary, data)
        _disk.rename(temporary, path)


def write_text(path: Path, text: str) -> None:
    r"""`write_bytes` of the text in UTF-8; line ends are not converted.

    A byte of a file's name that is no UTF-8 is written as its escape, \udce9 for example.
    """
    write_bytes(path, text.encode(errors="backslashreplace"))


def update(path: Path, change: Callable[[], bytes]) -> None:
    """`write_bytes` of what is made from the old content; no other `update` comes in between.

    path: of the file, which may be missing. `.lock-<name>` beside it is made, and kept.
    change: reads the file, and returns its new content.

    Raises `LockedError`, which names the owner, if another process does not end its own.
    """
    with _turn(path):
        write_bytes(path, change())


def write_folder(path: Path, files: Mapping[str, bytes], *, shared: bool = False) -> None:
    """Create a folder with these files atomically; the files are written in the given order.

    path: an existing one is refused, since no file system replaces a non-empty folder in one step.
    files: content by name. The file that verifies the others (a manifest) belongs last.
    shared: processes of several machines write beside it, without a lock; the temporary then has
        the name `.tmp-<process>.<machine>-<name>`.
    """
    temporary = _temporary(path, f".{_machine()}" if shared else "")
    with _translate_errors("write", path, sum(map(len, files.values()))):
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with _remove_on_error(temporary):
            _disk.mkdir(temporary)
            for name, data in files.items():
                _disk.create(temporary / name, data)
            _disk.sync(temporary)
            try:
                _disk.rename(temporary, path)
            except OSError:
                if not temporary.exists():  # It has its name, but its parent was not synced.
                    _disk.take_back(path, temporary)
                raise


def write_first_free(paths: Iterator[Path], files: Mapping[str, bytes]) -> Path:
    """`write_folder`, shared, under the first of the paths that is free; returns that path.

    A path that another process takes meanwhile gives way to the next one.
    """
    for path in paths:
        if path.exists() or path.is_symlink():
            continue
        try:
            write_folder(path, files, shared=True)
        except StoreError as error:
            if _number(error) not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
        else:
            return path
    raise ValueError("all paths are taken")


def require_writable(folder: Path) -> None:
    """Raise `StoreError` unless a folder, or its missing parents, can be made and written to.

    Makes and removes a temporary folder in the nearest existing parent; nothing remains.
    """
    with _translate_errors("write", folder):
        nearest = next(path for path in (folder, *folder.absolute().parents) if path.exists())
        probe = _temporary(nearest / "probe", f".{_machine()}")
        with _remove_on_error(probe):
            _disk.mkdir(probe)
            _disk.remove(probe)


def require_updatable(path: Path) -> None:
    """Raise `StoreError` unless `update` can write this file, as it is: nothing is changed.

    path: of the file, which may be missing; its folder is there. `.lock-<name>` beside it stays.
    """
    with _turn(path):
        probe = _temporary(path)
        with _translate_errors("write", path), _remove_on_error(probe):
            _disk.create(probe, b"")
            _disk.remove(probe)


def append(path: Path, data: bytes) -> None:
    """Append to a file, created if missing. A failed append leaves the file unchanged."""
    with _translate_errors("write", path, len(data)):
        _disk.append(path, data)


def append_line(path: Path, text: str) -> None:
    """`append` of one line; the text holds no line end."""
    if "\n" in text:
        raise ValueError(f"a line cannot hold a line end: {text!r}")
    append(path, f"{text}\n".encode())


def truncate_lines(path: Path, keep: Callable[[str], bool]) -> int:
    """Drop the lines that `keep` rejects; returns the number of dropped lines.

    An incomplete last line and lines that are not UTF-8 are always dropped. If there is nothing to
    drop, the file is not written.
    """

    def is_kept(line: bytes) -> bool:
        try:
            return keep(line.decode())
        except UnicodeDecodeError:
            return False

    with _translate_errors("repair", path):
        *lines, rest = path.read_bytes().split(b"\n")
    kept = [line for line in lines if is_kept(line)]
    if rest or len(kept) < len(lines):
        write_bytes(path, b"".join(line + b"\n" for line in kept))
    return len(lines) + bool(rest) - len(kept)


def make_folder(path: Path) -> None:
    """Create a folder and its missing parents."""
    with _translate_errors("make the folder", path):
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                _disk.mkdir(folder)
                _watched.watch_new(folder)


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder. Replaces an existing file; a non-empty folder is refused."""
    with _translate_errors("rename", source):
        _disk.rename(source, target)
        _watched.forget(source)


def remove(path: Path) -> None:
    """Remove a file if it exists. After a loss of power it may exist again."""
    with _translate_errors("remove", path):
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _disk.remove(path)


def remove_tree(path: Path) -> None:
    """Remove a folder and its content if it exists; it disappears in one step."""
    with _translate_errors("remove", path):
        if path.exists():
            temporary = _temporary(path)
            _disk.remove(temporary)
            _disk.rename(path, temporary)
            _watched.forget(path)
            _disk.remove(temporary)


def clean_temporaries(folder: Path) -> None:
    """Remove the temporaries of dead processes from a folder.

    Raises `LockedError`, and removes nothing, if one of them belongs to a living process.
    """
    with _translate_errors("clean", folder):
        temporaries = _temporaries(folder)
    living = [
        Problem(str(path), f"written by process {pid}", f"stop it (kill {pid}) or remove this")
        for path, pid, began in temporaries
        if _is_alive(pid, began)
    ]
    if living:
        raise LockedError(f"another process writes in {folder}", living)
    for path, *_ in temporaries:
        with _translate_errors("remove", path):
            _disk.remove(path)


def clean_shared(folder: Path) -> None:
    """Remove the temporaries of this machine's dead processes from a folder without a lock.

    Those of living processes and of other machines stay. What cannot be removed stays as well.
    """
    with suppress(OSError):
        for path, pid, began in _temporaries(folder):
            if not _is_alive(pid, began):
                _disk.remove(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a folder inside the block; raises `LockedError`, which names the owner, if it is locked.

    The system releases the lock when its process ends. Forked workers do not inherit it. Inside the
    block, `StoreError` is raised instead of writing below the folder once it or one of its folders
    was removed or replaced, by a symbolic link for example.
    """
    path = folder / ".lock"

    def enter() -> bool:
        with _translate_errors("lock", path):
            return stack.enter_context(_disk.lock(path))

    with ExitStack() as stack:
        if not try_twice(enter):
            raise _lock_error(folder, path)
        with _translate_errors("lock", path):
            _watched.watch(folder)
        stack.callback(_watched.forget, folder)
        yield


def _temporary(path: Path, machine: str = "") -> Path:
    """The name of a file while it is written. Raises `StoreError` for a path that names no file."""
    if not path.name or "\0" in str(path):
        problem = Problem(f"path = {str(path)!r}", "names no file", "a file name, as in out/net")
        raise StoreError("cannot write a file", [problem])
    began = _began(os.getpid())
    process = f"{os.getpid()}s{began}" if began else f"{os.getpid()}"
    return path.with_name(f".tmp-{process}{machine}-{path.name}")


def _machine() -> str:
    """A word for this machine: the processes of two machines can have one number."""
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _temporaries(folder: Path) -> list[tuple[Path, int, str]]:
    """The temporaries in a folder with the number and start of their processes.

    Not those of other machines. The start is "" in those of earlier versions.
    """
    return [
        (path, int(match[1]), match[2] or "")
        for path in sorted(folder.iterdir())
        if (match := _TEMPORARY.match(path.name)) and match[3] in (None, _machine())
    ]


@contextmanager
def _remove_on_error(temporary: Path) -> Iterator[None]:
    _disk.remove(temporary)  # Left by a dead process with our number.
    try:
        yield
    except BaseException:
        with suppress(OSError):
            _disk.remove(temporary)
        raise


def _began(pid: int) -> str:
    """The start of a process as 8 digits; "" where the system does not tell (outside of Linux)."""
    with suppress(OSError, IndexError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes()
        # Behind the program's name in parentheses, which may hold any byte, fields 3 to 52 follow.
        start = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()[19]
        return hashlib.sha256(boot + start).hexdigest()[:8]
    return ""


def _is_alive(pid: int, began: str) -> bool:
    """True if another process has this number, and this start if both are known.

    Our own number belongs to a dead process: containers give their first process the same number
    every time. On Windows, where `os.kill` kills, always False: an open file cannot be removed.
    """
    if pid == os.getpid() or sys.platform == "win32":
        return False
    if began and _began(pid) not in ("", began):  # Another one, which got the number later.
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # It is alive and belongs to another user.
    return True


@contextmanager
def _turn(path: Path) -> Iterator[None]:
    """The lock of a file inside the block. Not of the file itself: a rename replaces that."""
    place = path.with_name(f".lock-{path.name}")
    end = time.monotonic() + PATIENCE_S
    while True:
        with ExitStack() as stack:
            with _translate_errors("lock", place):
                owned = stack.enter_context(_disk.lock(place))
            if owned:
                yield
                return
            if time.monotonic() > end:
                raise _lock_error(path, place)
        time.sleep(LOOK_S)


def _lock_error(folder: Path, path: Path) -> LockedError:
    pid, _, host = path.read_text(errors="replace").strip().partition(" ")
    owner = f"process {pid} on {host}" if host else "another process"
    fix = f"wait for it to end, or stop it: kill {pid}" if host else "wait for it to end"
    return LockedError(f"{folder} is in use", [Problem(str(folder), f"owned by {owner}", fix)])


@contextmanager
def _translate_errors(doing: str, path: Path, size: int = 0) -> Iterator[None]:
    """Turn an OSError into a `StoreError`: what failed, why, and what to do.

    Raises `StoreError` before the block if a locked folder above the path was replaced.
    """
    _watched.require_unchanged(path)
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in _FULL:
            why += f" ({size:,} bytes needed, {_free(path)} free)"
        fix = _FIXES.get(error.errno or 0, "")
        raise StoreError(f"cannot {doing} {path}", [Problem("disk", why, fix)]) from error


def _free(path: Path) -> str:
    for folder in path.parents:
        with suppress(OSError):
            return f"{shutil.disk_usage(folder).free:,}"
    return "unknown"


def _number(error: StoreError) -> int | None:
    """The system's number of an error; None if it is not one of the system."""
    return error.__cause__.errno if isinstance(error.__cause__, OSError) else None


_TEMPORARY = re.compile(r"\.tmp-(\d+)(?:s([0-9a-f]{8}))?(?:\.([0-9a-f]{8}))?-")
_PASSING = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FIXES = {
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "your quota is used up: remove something, or choose another disk",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f)",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "this disk is read-only: choose another",
    errno.EEXIST: "something has this name already: choose another name, or move it away",
    errno.ENOTEMPTY: "something has this name already: choose another name, or move it away",
    errno.ENOTDIR: "a file is where a folder should be: choose another path, or move it away",
    errno.EISDIR: "a folder is where a file should be: choose another name, or move it away",
    errno.ELOOP: "this is a symbolic link, which is not followed: give the path it points to",
    errno.ENXIO: "a pipe is where a file should be: choose another path, or move it away",
    errno.ENOENT: "its folder does not exist: was it moved or removed meanwhile?",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk fails: save your files on another one",
}
