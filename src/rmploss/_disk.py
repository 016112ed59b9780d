"""The changes a disk knows: create, append, rename, remove, mkdir, lock, and how each is made sure.

Every one is announced to `hooks` just before it is made, so that a test can stop the process at
any of them. They raise OSError; `store`, the only module that calls them, composes and explains.
"""

import errno
import os
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl


class Operation(NamedTuple):
    """One change of the disk: its name, the path, the appended bytes or the new name."""

    name: str
    path: Path
    data: bytes = b""
    target: Path | None = None


hooks: list[Callable[[Operation], None]] = []

# Windows only: without it, line ends are rewritten.
_BINARY = getattr(os, "O_BINARY", 0)
# A file that was swapped for a symbolic link is not written through.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)


def create(path: Path, data: bytes) -> None:
    """A new file with its content, synced; an existing one is refused."""
    _announce("create", path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        _write(file, path, data)
    finally:
        os.close(file)


def append(path: Path, data: bytes) -> None:
    """More bytes at the end of a file (a new one if need be), synced; all of them or none."""
    new = not path.exists()
    if new:
        _announce("create", path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY | _NOFOLLOW, 0o666)
    try:
        size = os.fstat(file).st_size
        try:
            _write(file, path, data)
        except OSError:
            with suppress(OSError):
                _announce("truncate", path)
                os.ftruncate(file, size)
            raise
    finally:
        os.close(file)
    if new:
        sync(path.parent)


def rename(source: Path, target: Path) -> None:
    """Another name for a file or folder, synced; a file that has it already is replaced."""
    _announce("rename", source, target=target)
    source.replace(target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def mkdir(path: Path) -> None:
    """A new folder, synced; one that has just appeared is as good."""
    _announce("mkdir", path)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def remove(path: Path) -> None:
    """No such file, or folder with all it holds; not synced, links are not followed."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            remove(child)
        _announce("remove", path)
        path.rmdir()
    else:
        _announce("remove", path)
        path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """The names in a folder, made to survive a loss of power."""
    if sys.platform == "win32":  # Windows opens no folder; NTFS keeps its own journal of names.
        return
    _announce("sync", folder)
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _flush(file)
    except OSError as error:
        # Some network file systems cannot sync a folder and say so; they order names themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Whether this process owns the lock file inside the block.

    The system frees the lock when its owner ends, however that ends. The file stays: removing it
    would let two processes lock two files of one name.
    """
    _announce("lock", path)
    file = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW, 0o666)
    _held.add(file)
    try:
        owned = _grip(file)
        if owned:
            # The words help the reader of a refusal; a full disk is no reason not to own the lock.
            with suppress(OSError):
                os.ftruncate(file, 0)
                os.write(file, f"{os.getpid()} {socket.gethostname()}\n".encode())
        yield owned
    finally:
        if file in _held:
            _held.remove(file)
            os.close(file)


def _announce(name: str, path: Path, data: bytes = b"", target: Path | None = None) -> None:
    for hook in hooks:
        hook(Operation(name, path, data, target))


def _write(file: int, path: Path, data: bytes) -> None:
    _announce("append", path, data)
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(file, rest) :]
    _announce("fsync", path)
    _flush(file)


def _flush(file: int) -> None:
    """fsync. A failed one is never tried again: the kernel may already have dropped the pages."""
    if sys.platform == "darwin":  # There, fsync stops at the cache of the drive.
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fsync(file)


def _grip(file: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(file, 1 << 30, os.SEEK_SET)  # Beyond the words: a locked byte cannot be read.
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


# A lock lives as long as any copy of its file does. A forked worker that outlives its parent must
# not keep the folder from the next run.
_held: set[int] = set()


def _let_go() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
