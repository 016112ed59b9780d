"""Run folders as archives below 16 MiB, and back.

A finished run is one archive without its checkpoints: its complete record. An interrupted one is
an archive with them, in pieces, since its weights and momentum alone are larger than that.
"""

import io
import zipfile
import zlib
from pathlib import Path

from rmploss import store
from rmploss.errors import StoreError

LIMIT = 15 * 2**20
"""Bytes of a piece: somewhat below 16 MiB."""
CHECKPOINTS = "ckpt"
"""The folder of the checkpoints in a run folder."""


def pack(run: Path, archive: Path, *, checkpoints: bool) -> list[Path]:
    """Write a run folder as `ARCHIVE.zip`, or in pieces `ARCHIVE.zip.00`, `.01`, ...

    run: the run folder.
    archive: the path without its ending.
    checkpoints: include the checkpoints.

    Returns the files; those of an earlier archive of that name are removed. The order makes a
    killed call harmless: the pieces are counted in the last name, which is written last.
    """
    data = _zip(run, checkpoints)
    old = pieces(archive)
    base = archive.name + ".zip"
    if len(data) <= LIMIT:
        new = [archive.with_name(base)]
        parts = [data]
    else:
        parts = [data[first : first + LIMIT] for first in range(0, len(data), LIMIT)]
        new = [archive.with_name(f"{base}.{n:02}of{len(parts):02}") for n in range(len(parts))]
    store.make_folder(archive.parent)
    for path in old:
        store.remove(path)
    for path, part in zip(new, parts, strict=True):
        store.write_bytes(path, part)
    return new


def pieces(archive: Path) -> list[Path]:
    """The files of an archive, in order; empty if there is none."""
    return sorted(archive.parent.glob(archive.name + ".zip*"))


def unpack(archive: Path, folder: Path) -> Path | None:
    """Restore a run folder from all pieces of its archive; returns it, or None without them.

    archive: the path without its ending.
    folder: receives the run folder; it must not hold it yet.
    Raises `StoreError` for an archive that is damaged.
    """
    found = pieces(archive)
    count = int(found[0].name.rpartition("of")[2]) if found and "of" in found[0].suffix else 1
    if len(found) != count:
        return None
    try:
        with zipfile.ZipFile(io.BytesIO(b"".join(path.read_bytes() for path in found))) as archived:
            files = {name: archived.read(name) for name in archived.namelist()}
    except (zipfile.BadZipFile, EOFError, zlib.error) as error:
        raise StoreError(f"{found[0]} is damaged: {error}") from None
    return _restore(files, folder)


def _zip(run: Path, checkpoints: bool) -> bytes:
    """The run folder as a zip archive, without its lock."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as files:
        for path in sorted(run.rglob("*")):
            name = path.relative_to(run.parent)
            wanted = checkpoints or CHECKPOINTS not in name.parts
            if path.is_file() and wanted and not path.name.startswith("."):
                files.write(path, name.as_posix())
    return buffer.getvalue()


def _restore(files: dict[str, bytes], folder: Path) -> Path:
    """Write the files below `folder`; a name that leads out of it is refused."""
    for name in files:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise StoreError(f"{name} leads out of the archive")
    top = folder / next(iter(files)).split("/")[0]
    for name, data in files.items():
        store.make_folder((folder / name).parent)
        store.write_bytes(folder / name, data)
    return top
