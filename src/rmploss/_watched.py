"""Notice that a folder was removed or replaced, by a symbolic link for example, while in use.

`store.lock` watches the folder that it locks and the folders in it. `store` asks before each change
of the disk, so that nothing is written to the wrong place.
"""

from pathlib import Path

from rmploss.errors import Problem, StoreError

_folders: dict[Path, tuple[int, ...]] = {}


def watch(folder: Path) -> None:
    """Remember a folder and the folders in it."""
    for each in (folder, *(child for child in folder.iterdir() if child.is_dir())):
        _folders[each] = _identity(each)


def watch_new(folder: Path) -> None:
    """Remember a folder that was just made, if the folder that holds it is watched."""
    if folder.parent in _folders:
        _folders[folder] = _identity(folder)


def forget(folder: Path) -> None:
    """Watch a folder and those in it no longer."""
    for each in [path for path in _folders if path == folder or folder in path.parents]:
        del _folders[each]


def require_unchanged(path: Path) -> None:
    """Raise `StoreError` if a watched folder, at a path or above it, is no longer the same."""
    for folder in (*reversed(path.parents), path):
        before = _folders.get(folder)
        if before is not None and (now := _identity(folder)) != before:
            change = "was replaced by another" if now else "was removed"
            if folder.is_symlink():
                change = "was replaced by a symbolic link"
            fix = "nothing was written there: put it back, then resume"
            problem = Problem(str(folder), f"{change} while it was in use", fix)
            raise StoreError(f"cannot write {path}", [problem])


def _identity(folder: Path) -> tuple[int, ...]:
    """The numbers of a path and of the folder it leads to; they differ if the path is a link."""
    try:
        found = folder.lstat(), folder.stat()
    except OSError:
        return ()
    return tuple(number for status in found for number in (status.st_dev, status.st_ino))
