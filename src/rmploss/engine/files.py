"""Read a file of a run folder that may be a folder, a pipe or a device instead of a file."""

import stat
from pathlib import Path


def read_regular(path: Path) -> bytes:
    """The content of a regular file; OSError for anything else, without waiting for a pipe."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise OSError(f"no regular file: {path.name}")
    return path.read_bytes()


def reason(error: OSError) -> str:
    """An OSError in the words of a damage: "nothing", "a folder", else those of the system."""
    if isinstance(error, FileNotFoundError):
        return "nothing"
    if isinstance(error, IsADirectoryError):
        return "a folder"
    return error.strerror or str(error)
