"""The manifest of a finished run: size and SHA-256 of every file, and the run digest.

    manifest.json    "format", "versions", "digest", "files": {name: {"bytes", "sha256"}}, "sha256"

It is written last, in one step, and its own "sha256" seals it. A resumed run removes it first, so
that a run with a manifest is finished and unchanged. Not in it: the lock, temporaries, report.html,
figures/, the files of trackers, and checkpoints that were set aside (`*.corrupt`), none of which a
result depends on.
"""

import hashlib
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmploss import store
from rmploss.engine.checkpoint import DamagedError, seal, unseal
from rmploss.engine.files import read_regular, reason
from rmploss.errors import Problem

FORMAT = 1
MANIFEST = "manifest.json"
APART = ("figures/", "tensorboard/", "wandb/")
"""The folders of figures and of trackers."""
COMPUTED = ("predictions.json", "membrane.json", "cost.json", "result.json")
"""The files that `--resume` writes again when they are missing."""


@dataclass(frozen=True)
class Damage:
    """One file that is not what was written.

    file: its name, relative to the run folder.
    expected: what was written.
    found: what is there.
    fix: what to do.
    """

    file: str
    expected: str
    found: str
    fix: str

    def problem(self, path: Path) -> Problem:
        """The damage as a line of an error about the run folder `path`."""
        what = f"expected {self.expected}, found {self.found}"
        return Problem(str(path / self.file), what, self.fix)


def write(path: Path, digest: str, versions: Mapping[str, str]) -> None:
    """Write the manifest of a run folder; nothing else of the run may be written afterwards.

    path: the run folder.
    digest: of the run (`engine.run.digest`).
    versions: of the packages that finished it.
    """
    files = {name: _described(path / name) for name in recorded_files(path)}
    content = {"format": FORMAT, "versions": dict(versions), "digest": digest, "files": files}
    store.write_bytes(path / MANIFEST, seal(content))


def remove(path: Path) -> None:
    """Remove the manifest, since the run is about to change; it may be absent."""
    if exists(path):
        store.remove(path / MANIFEST)


def exists(path: Path) -> bool:
    """True if there is something of that name, sound or not."""
    return os.path.lexists(path / MANIFEST)


def read(path: Path) -> dict[str, Any]:
    """The manifest of a run folder; `DamagedError` unless it is sound and of this format."""
    try:
        manifest = unseal(read_regular(path / MANIFEST))
    except OSError as error:
        raise DamagedError(reason(error)) from None
    if manifest.get("format") != FORMAT:
        raise DamagedError(f"format {manifest.get('format')!r}; this version reads {FORMAT}")
    files = manifest.get("files")
    if not isinstance(files, dict) or not isinstance(manifest.get("digest"), str):
        raise DamagedError("no list of files")
    if any(not isinstance(f, dict) or f.keys() != {"bytes", "sha256"} for f in files.values()):
        raise DamagedError("a file without size and SHA-256")
    return manifest


def damages(
    path: Path, manifest: Mapping[str, Any], names: Collection[str] | None = None
) -> list[Damage]:
    """The files that differ from the manifest.

    path: the run folder.
    manifest: from `read`.
    names: the files to look at; None: all of them, and checkpoints that the manifest lacks.
    """
    found = []
    for name, expected in manifest["files"].items():
        if names is not None and name not in names:
            continue
        try:
            there = _described(path / name)
        except OSError as error:
            found.append(Damage(name, _words(expected), reason(error), fix_of(name)))
            continue
        if there != expected:
            found.append(Damage(name, _words(expected), _words(there), fix_of(name)))
    if names is None:
        for name in recorded_files(path):
            if name.startswith("ckpt/") and name not in manifest["files"]:
                fix = "move its folder away: it is not of this run"
                found.append(Damage(name, "no such file", "one that the manifest lacks", fix))
    return found


def recorded_files(path: Path) -> list[str]:
    """The files of a run folder that a manifest lists, by name; links are listed as files."""
    names = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(name for name in folders if not _ignored(name))
        inside = [name for name in files if not _ignored(name)]
        inside += [name for name in folders if (Path(folder) / name).is_symlink()]
        names += [(Path(folder) / name).relative_to(path).as_posix() for name in inside]
    made = (MANIFEST, "report.html")
    return sorted(name for name in names if name not in made and not name.startswith(APART))


def fix_of(name: str) -> str:
    """What to do about a damaged file."""
    if name in COMPUTED:
        return "remove it: rmploss train --resume writes it again"
    if name.startswith("ckpt/"):
        return "put a copy back; until then eval takes an older checkpoint and says so"
    return "put a copy back: it cannot be computed again"


def _described(path: Path) -> dict[str, Any]:
    return described(read_regular(path))


def described(data: bytes) -> dict[str, Any]:
    """Size and SHA-256 of the content of a file, as a manifest lists them."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _words(described: Mapping[str, Any]) -> str:
    size, sha256 = described["bytes"], str(described["sha256"])
    return f"{size} bytes of SHA-256 {sha256[:12]}"


def _ignored(name: str) -> bool:
    return name.startswith(".") or ".corrupt" in name
