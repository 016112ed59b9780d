"""Whose code raised an exception: that of this package, or of somebody who uses it."""

import sysconfig
import traceback
from pathlib import Path

import rmploss

OURS = Path(rmploss.__file__).parent
LIBRARIES = (
    "torch", "torchvision", "numpy", "scipy", "sklearn", "PIL", "safetensors", "rich", "tyro",
    "typeguard", "jinja2", "markupsafe", "matplotlib", "triton",
)  # fmt: skip
"""Packages that the code of either calls."""
PACKAGES = ("site-packages", "dist-packages")


def foreign_frame(error: BaseException) -> str | None:
    """The place in other code that raised, "file, line 3"; None: it was our code.

    Of the functions that were running, the innermost counts that is neither Python's nor one of
    `LIBRARIES`.
    """
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(OURS):
            return None
        if not _is_library(path):
            return f"{frame.filename}, line {frame.lineno}"
    return None


def _is_library(path: Path) -> bool:
    if not path.is_absolute():  # <frozen importlib>, <string>
        return True
    for folder in PACKAGES:
        if folder in path.parts:
            return path.parts[path.parts.index(folder) + 1] in LIBRARIES
    return path.is_relative_to(sysconfig.get_path("stdlib"))
