"""Durable, atomic writes: the only module of rmploss that opens a file for writing.

When a function returns, its changes survive the death of the process and of the machine. If it is
interrupted at any point, a reader finds the complete old content or the complete new one.

    a file      temporary beside it -> fsync -> rename over the old one -> sync the folder
    a folder    temporary beside it, each file with fsync, the manifest last -> sync the temporary
                -> rename -> sync the parent
    a line      one append of the whole line -> fsync; `truncate_lines` drops an incomplete one

Temporaries are named `.tmp-<process>-<name>`. An OSError of the disk becomes a `StoreError`.
"""

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from rmploss import _disk
from rmploss.errors import LockedError, Problem, StoreError


def write_bytes(path: Path, data: bytes) -> None:
    """Write or replace a file atomically."""
    temporary = _temporary(path)
    with _translate_errors("write", path, len(data)), _remove_on_error(temporary):
        _disk.create(temporary, data)
        _disk.rename(temporary, path)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of the text in UTF-8; line ends are not converted."""
    write_bytes(path, text.encode())


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Create a folder with these files atomically; the files are written in the given order.

    The file that verifies the others (a manifest) belongs last. An existing path is refused, since
    no file system replaces a non-empty folder in one step.
    """
    temporary = _temporary(path)
    with _translate_errors("write", path, sum(map(len, files.values()))):
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with _remove_on_error(temporary):
            _disk.mkdir(temporary)
            for name, data in files.items():
                _disk.create(temporary / name, data)
            _disk.sync(temporary)
            _disk.rename(temporary, path)


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


def rename(source: Path, target: Path) -> None:
    """Rename a file or folder. Replaces an existing file; a non-empty folder is refused."""
    with _translate_errors("rename", source):
        _disk.rename(source, target)


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
            _disk.remove(temporary)


def clean_temporaries(folder: Path) -> None:
    """Remove the temporaries of dead processes from a folder.

    Raises `LockedError`, and removes nothing, if one of them belongs to a living process.
    """
    with _translate_errors("clean", folder):
        temporaries = [
            (path, int(match[1]))
            for path in sorted(folder.iterdir())
            if (match := re.match(r"\.tmp-(\d+)-", path.name))
        ]
    living = [
        Problem(str(path), f"written by process {pid}", f"stop it (kill {pid}) or remove this")
        for path, pid in temporaries
        if _is_alive(pid)
    ]
    if living:
        raise LockedError(f"another process writes in {folder}", living)
    for path, _ in temporaries:
        with _translate_errors("remove", path):
            _disk.remove(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Lock a folder inside the block; raises `LockedError`, which names the owner, if it is locked.

    The system releases the lock when its process ends. Forked workers do not inherit it.
    """
    path = folder / ".lock"
    with ExitStack() as stack:
        with _translate_errors("lock", path):
            owned = stack.enter_context(_disk.lock(path))
        if not owned:
            raise _lock_error(folder, path)
        yield


def _temporary(path: Path) -> Path:
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


@contextmanager
def _remove_on_error(temporary: Path) -> Iterator[None]:
    _disk.remove(temporary)  # Left by a dead process with our number.
    try:
        yield
    except BaseException:
        with suppress(OSError):
            _disk.remove(temporary)
        raise


def _is_alive(pid: int) -> bool:
    """True if another process has this number.

    Our own number belongs to a dead process: containers give their first process the same number
    every time. On Windows, where `os.kill` kills, always False: an open file cannot be removed.
    """
    if pid == os.getpid() or sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # It is alive and belongs to another user.
    return True


def _lock_error(folder: Path, path: Path) -> LockedError:
    pid, _, host = path.read_text(errors="replace").strip().partition(" ")
    owner = f"process {pid} on {host}" if host else "another process"
    fix = f"wait for it to end, or stop it: kill {pid}" if host else "wait for it to end"
    return LockedError(f"{folder} is in use", [Problem(str(folder), f"owned by {owner}", fix)])


@contextmanager
def _translate_errors(doing: str, path: Path, size: int = 0) -> Iterator[None]:
    """Turn an OSError into a `StoreError`: what failed, why, and what to do."""
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
    errno.ENOENT: "its folder does not exist: was it moved or removed meanwhile?",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk fails: save your files on another one",
}
