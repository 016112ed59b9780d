"""Packs from a hub: `hf:owner/name@revision#sha256`, by HTTPS, pinned to a revision and a hash.

The hash is that of manifest.json, which holds the hash of every other file: a pack is what its
reference says, from any server. Files are kept below the folder of computed files, and an
interrupted download continues.
"""

import hashlib
import os
import re
from pathlib import Path
from typing import Any

from rmploss import store
from rmploss.data import fetch
from rmploss.data._base import cache_root
from rmploss.engine import manifest
from rmploss.errors import DataError, Problem, UserError

PREFIX = "hf:"
REFERENCE = re.compile(r"hf:([\w.-]+)/([\w.-]+)@([\w.-]+)#([0-9a-f]{64})")
NAME = re.compile(r"\w[\w.-]*")
MANIFEST_BYTES, PACK_BYTES = 1 << 20, 4 << 30
"""The most bytes of a manifest, and of all files of a pack."""


def address() -> str:
    """The address of the hub: $RMPLOSS_HUB, else that of Hugging Face."""
    return os.environ.get("RMPLOSS_HUB") or "https://huggingface.co"


def located(source: str | Path) -> Path:
    """The folder of a source: a path as it is; of a reference to a hub its pack, fetched if needed.

    Raises `UserError` for a reference without revision or hash, `DataError` for a failed download
    or another content.
    """
    words = str(source)
    return fetched(words) if words.startswith(PREFIX) else Path(source)


def fetched(reference: str) -> Path:
    """The folder of a pack by its reference."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        fix = f"{PREFIX}OWNER/NAME@REVISION#SHA256, the hash of its manifest.json (64 digits)"
        raise UserError("not a pinned pack", [Problem(reference, "names no such pack", fix)])
    owner, name, revision, sha256 = match.groups()
    folder = cache_root(None) / "packs" / f"{name}-{sha256}"
    if folder.is_dir():
        return folder
    base = f"{address()}/{owner}/{name}/resolve/{revision}"
    sealed = fetch.get(f"{base}/{manifest.MANIFEST}", MANIFEST_BYTES)
    if hashlib.sha256(sealed).hexdigest() != sha256:
        what = f"its SHA-256 is {hashlib.sha256(sealed).hexdigest()}"
        problem = Problem(
            f"{base}/{manifest.MANIFEST}", what, "ask its publisher for the reference"
        )
        raise DataError("the pack is not the one of the reference", [problem])
    partial = folder.with_name(f"partial-{folder.name}")
    store.make_folder(partial)
    store.write_bytes(partial / manifest.MANIFEST, sealed)
    for file, described in _checked(partial).items():
        archive = fetch.Archive(f"{base}/{file}", described["sha256"], described["bytes"], "")
        fetch.download(archive, partial / file)
        fetch.read_verified(archive, partial / file)
    store.rename(partial, folder)
    return folder


def _checked(folder: Path) -> dict[str, dict[str, Any]]:
    """The files of a manifest; `DataError` for names with a path, and beyond the limit."""
    files = manifest.read(folder)["files"]
    strange = [name for name in files if not NAME.fullmatch(name)]
    if strange or sum(int(each["bytes"]) for each in files.values()) > PACK_BYTES:
        what = f"lists {strange[0]!r}" if strange else f"lists more than {PACK_BYTES} bytes"
        raise DataError("the pack is refused", [Problem(str(folder), what, "")])
    return files
