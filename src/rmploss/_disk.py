"""Single changes of the disk, each synced: create, append, rename, mkdir, lock; and remove.

Each calls `hooks` just before every system call that changes the disk, so that a test can stop the
process there. They raise OSError. Only `store` calls them; it combines them and explains errors.
"""

import errno
import os
import socket
import stat
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
    """One change of the disk.

    name: of the system call.
    path: of the file or folder.
    data: the appended bytes.
    target: the new name.
    """

    name: str
    path: Path
    data: bytes = b""
    target: Path | None = None


hooks: list[Callable[[Operation], None]] = []

# Windows only: without it, line ends are rewritten.
_BINARY = getattr(os, "O_BINARY", 0)
# A symbolic link that replaced a file is not followed.
_NOFOLLOW = getattr(os, "O_NOFOLLOW", 0)
# A pipe that replaced a file is refused, instead of waiting for its reader.
_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def create(path: Path, data: bytes) -> None:
    """Create a file with its content and sync it; raises FileExistsError if it exists."""
    _announce("create", path)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)
    try:
        _write(file, path, data)
    finally:
        os.close(file)


def append(path: Path, data: bytes) -> None:
    """Append bytes to a file, created if missing, and sync it; all of them or none."""
    new = not path.exists()
    if new:
        _announce("create", path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | _BINARY | _NOFOLLOW | _NONBLOCK
    file = os.open(path, flags, 0o666)
    try:
        if stat.S_ISFIFO(os.fstat(file).st_mode):
            raise OSError(errno.ENXIO, os.strerror(errno.ENXIO))
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
    """Rename a file or folder and sync; an existing file of the new name is replaced."""
    _announce("rename", source, target=target)
    source.replace(target)
    sync(target.parent)
    if source.parent != target.parent:
        sync(source.parent)


def take_back(target: Path, source: Path) -> None:
    """Give a folder its old name again after a `rename` that failed; not synced."""
    _announce("rename", target, target=source)
    target.replace(source)


def mkdir(path: Path) -> None:
    """Create a folder and sync its parent; a folder that exists is accepted."""
    _announce("mkdir", path)
    path.mkdir(exist_ok=True)
    sync(path.parent)


def remove(path: Path) -> None:
    """Remove a file, or a folder with its content; not synced, links are not followed."""
    if path.is_dir() and not path.is_symlink():
        for child in sorted(path.iterdir()):
            remove(child)
        _announce("remove", path)
        path.rmdir()
    else:
        _announce("remove", path)
        path.unlink(missing_ok=True)


def sync(folder: Path) -> None:
    """Make the names in a folder survive a loss of power."""
    if sys.platform == "win32":  # Windows cannot open a folder; NTFS journals names.
        return
    _announce("sync", folder)
    file = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        _flush(file)
    except OSError as error:
        # Some network file systems cannot sync a folder; they order names themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(file)


@contextmanager
def lock(path: Path) -> Iterator[bool]:
    """Lock a file inside the block; yields False if another process has locked it.

    The system releases the lock when its owner ends. The file is kept: if it were removed, two
    processes could lock two files of one name.
    """
    _announce("lock", path)
    file = os.open(path, os.O_RDWR | os.O_CREAT | _NOFOLLOW, 0o666)
    _held.add(file)
    try:
        owned = _try_lock(file)
        if owned:
            # The text is for the error message of others; a full disk does not prevent the lock.
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
    """fsync. A failed fsync is not repeated: the kernel may have dropped the pages already."""
    if sys.platform == "darwin":  # fsync does not flush the drive's cache there.
        fcntl.fcntl(file, fcntl.F_FULLFSYNC)
    else:
        os.fsync(file)


def _try_lock(file: int) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(file, 1 << 30, os.SEEK_SET)  # Beyond the text: a locked byte cannot be read.
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
            os.lseek(file, 0, os.SEEK_SET)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


# A lock lasts as long as any copy of its file descriptor. A forked worker that outlives its parent
# must not lock the folder against the next run.
_held: set[int] = set()


def _close_inherited() -> None:
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_inherited)
