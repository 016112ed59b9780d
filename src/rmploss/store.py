"""The one door to the disk: nothing else in rmploss opens a file for writing.

The promise: when a function here returns, what it wrote survives the death of the process and of
the machine; wherever it is cut short, a reader finds the whole old content or the whole new one.

    a file      temporary beside it -> fsync -> rename over the old one -> sync the folder
    a folder    temporary beside it, each file with fsync, the manifest last -> sync the temporary
                -> rename -> sync the parent
    a line      one append of the whole line -> fsync; half a last line is cut by `truncate_lines`

Temporaries are named `.tmp-<process>-<name>`. What the disk refuses is told as a `StoreError`.
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
    """Give a file this content, or make it: all of it or nothing."""
    temporary = _temporary(path)
    with _explained("write", path, len(data)), _removed_if_cut_short(temporary):
        _disk.create(temporary, data)
        _disk.rename(temporary, path)


def write_text(path: Path, text: str) -> None:
    """`write_bytes` of the text in UTF-8, line ends as they are."""
    write_bytes(path, text.encode())


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Make a new folder of these files, written in their order: all of it or nothing.

    The file that vouches for the others (a manifest) belongs last. An existing path is refused: no
    file system replaces a full folder in one step.
    """
    temporary = _temporary(path)
    with _explained("write", path, sum(map(len, files.values()))):
        if path.exists() or path.is_symlink():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        with _removed_if_cut_short(temporary):
            _disk.mkdir(temporary)
            for name, data in files.items():
                _disk.create(temporary / name, data)
            _disk.sync(temporary)
            _disk.rename(temporary, path)


def append(path: Path, data: bytes) -> None:
    """Add to the end of a file, or make it. A refused append leaves the file as it was."""
    with _explained("write", path, len(data)):
        _disk.append(path, data)


def append_line(path: Path, text: str) -> None:
    """`append` of one whole line; the text itself holds no line end."""
    if "\n" in text:
        raise ValueError(f"a line cannot hold a line end: {text!r}")
    append(path, f"{text}\n".encode())


def truncate_lines(path: Path, keep: Callable[[str], bool]) -> int:
    """Rewrite a file with those of its lines that `keep` accepts; returns how many were dropped.

    Half a last line and a line that is not UTF-8 are always dropped. A file in no need of repair is
    not touched.
    """

    def good(line: bytes) -> bool:
        try:
            return keep(line.decode())
        except UnicodeDecodeError:
            return False

    with _explained("repair", path):
        *lines, rest = path.read_bytes().split(b"\n")
    kept = [line for line in lines if good(line)]
    if rest or len(kept) < len(lines):
        write_bytes(path, b"".join(line + b"\n" for line in kept))
    return len(lines) + bool(rest) - len(kept)


def make_folder(path: Path) -> None:
    """Make a folder, and those above it that are missing."""
    with _explained("make the folder", path):
        for folder in (*reversed(path.parents), path):
            if not folder.is_dir():
                _disk.mkdir(folder)


def rename(source: Path, target: Path) -> None:
    """Give a file or folder another name; a file there is replaced, a full folder refused."""
    with _explained("rename", source):
        _disk.rename(source, target)


def remove(path: Path) -> None:
    """Remove a file, if it is there. A loss of power may bring it back."""
    with _explained("remove", path):
        if path.is_dir() and not path.is_symlink():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        _disk.remove(path)


def remove_tree(path: Path) -> None:
    """Remove a folder with all it holds, if it is there; at no time half of it is in place."""
    with _explained("remove", path):
        if path.exists():
            temporary = _temporary(path)
            _disk.remove(temporary)
            _disk.rename(path, temporary)
            _disk.remove(temporary)


def clean_temporaries(folder: Path) -> None:
    """Remove what dead processes left half written in a folder.

    `LockedError` while a living process owns any of it: then nothing is removed.
    """
    with _explained("clean", folder):
        found = [
            (path, int(match[1]))
            for path in sorted(folder.iterdir())
            if (match := re.match(r"\.tmp-(\d+)-", path.name))
        ]
    living = [
        Problem(str(path), f"written by process {pid}", f"stop it (kill {pid}) or remove this")
        for path, pid in found
        if _alive(pid)
    ]
    if living:
        raise LockedError(f"another process writes in {folder}", living)
    for path, _ in found:
        with _explained("remove", path):
            _disk.remove(path)


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Own a folder inside the block; `LockedError` names the process that owns it already.

    The lock ends with its process, however that ends, and is not inherited by forked workers.
    """
    path = folder / ".lock"
    with ExitStack() as stack:
        with _explained("lock", path):
            owned = stack.enter_context(_disk.lock(path))
        if not owned:
            raise _in_use(folder, path)
        yield


def _temporary(path: Path) -> Path:
    return path.with_name(f".tmp-{os.getpid()}-{path.name}")


@contextmanager
def _removed_if_cut_short(temporary: Path) -> Iterator[None]:
    _disk.remove(temporary)  # Left by a dead process that had our number.
    try:
        yield
    except BaseException:
        with suppress(OSError):
            _disk.remove(temporary)
        raise


def _alive(pid: int) -> bool:
    """Whether another process has this number.

    Our own number on something we did not just make is that of a dead process: containers give
    their first process the same number every time. Windows lets nobody remove an open file, and
    its `os.kill` kills, so it is not asked there.
    """
    if pid == os.getpid() or sys.platform == "win32":
        return False
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # It lives, and is somebody else's.
    return True


def _in_use(folder: Path, path: Path) -> LockedError:
    pid, _, host = path.read_text(errors="replace").strip().partition(" ")
    owner = f"process {pid} on {host}" if host else "another process"
    fix = f"wait for it to end, or stop it: kill {pid}" if host else "wait for it to end"
    return LockedError(f"{folder} is in use", [Problem(str(folder), f"owned by {owner}", fix)])


@contextmanager
def _explained(doing: str, path: Path, size: int = 0) -> Iterator[None]:
    """Tell an OSError as what could not be done, why, and what to do."""
    try:
        yield
    except OSError as error:
        why = error.strerror or str(error)
        if error.errno in _FULL:
            why += f" ({size:,} bytes needed, {_free(path)} free)"
        fix = _FIXES.get(error.errno or 0, "")
        raise StoreError(f"cannot {doing} {path}", [Problem("disk", why, fix)]) from error


def _free(path: Path) -> str:
    for place in path.parents:
        with suppress(OSError):
            return f"{shutil.disk_usage(place).free:,}"
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
    errno.ENOTDIR: "a file is where a folder should be: choose another place, or move it away",
    errno.EISDIR: "a folder is where a file should be: choose another name, or move it away",
    errno.ELOOP: "this is a symbolic link, which is not followed: give the real place",
    errno.ENOENT: "its folder is gone: was it moved or removed meanwhile?",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EIO: "the disk itself fails: save what you need on another one",
}
