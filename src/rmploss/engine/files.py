"""Read a file of a run folder that may be a folder, a pipe or a device instead of a file."""

import os
import stat
from pathlib import Path


def read_regular(path: Path) -> bytes:
    """The content of a regular file; OSError for anything else, without waiting for a pipe."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    with os.fdopen(file, "rb") as opened:
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(f"no regular file: {path.name}")
        return opened.read()


def reason(error: OSError) -> str:
    """An OSError in the words of a damage: "nothing", "a folder", else those of the system."""
    if isinstance(error, FileNotFoundError):
        return "nothing"
    if isinstance(error, IsADirectoryError):
        return "a folder"
    return error.strerror or str(error)
