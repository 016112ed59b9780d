"""The environment of a run: versions, machine, devices, source and its commit."""

import hashlib
import io
import os
import platform
import subprocess
import zipfile
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

_PACKAGE = Path(__file__).parents[1]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that a result depends on."""
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": _version("torchvision"),
        "rmploss": _version("rmploss"),
    }


def environment() -> dict[str, Any]:
    """The record of machine and source in a run's first event."""
    return {
        **versions(),
        "platform": platform.platform(),
        "cpu": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "devices": [
            torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())
        ],
        "commit": _commit(),
    }


def source_files(plugged: Sequence[Mapping[str, str]]) -> list[Path]:
    """The files of entries from outside, each once, of their records (`plugins.record`)."""
    return list(dict.fromkeys(Path(record["file"]) for record in plugged if record["file"]))


def source_zip(others: Sequence[Path] = ()) -> bytes:
    """The Python files of the package as a zip archive; equal sources give equal bytes.

    others: files of plug-ins, which are put into `plugins/`.

    Uncompressed and without times, so that neither zlib's version nor the date matters.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as files:
        ours = sorted(_PACKAGE.rglob("*.py"))
        names = [path.relative_to(_PACKAGE.parent).as_posix() for path in ours]
        names += [f"plugins/{path.name}" for path in others]
        for path, name in zip([*ours, *others], names, strict=True):
            entry = zipfile.ZipInfo(name)  # Dated 1980, zip's earliest day.
            entry.create_system = 3
            entry.external_attr = 0o644 << 16
            files.writestr(entry, path.read_bytes())
    return archive.getvalue()


def source_hash() -> str:
    """The first 12 digits of the SHA-256 of the package's Python files."""
    return hashlib.sha256(source_zip()).hexdigest()[:12]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _commit() -> str | None:
    """The commit of the package's source, with "-dirty" if it was changed; None outside of git.

    Also None for a package installed below another work tree, whose index does not have it.
    """
    try:
        _git("ls-files", "--error-unmatch", "__init__.py")
        return _git("describe", "--always", "--abbrev=40", "--exclude=*", "--dirty")
    except (OSError, subprocess.SubprocessError):
        return None


def _git(*words: str) -> str:
    command = ["git", "-C", str(_PACKAGE), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    return done.stdout.strip()
