"""Fetch a data set from its publisher: download, compare the SHA-256, unpack, in this order.

The archive is stored beside the data under its own name. An interrupted download continues where
it stopped, and an archive that was put there by hand is used. An archive with another checksum is
not unpacked, and the folder of the data set appears complete or not at all.

Unpacking reads the files of the archive into memory, within limits, and `store` writes them. Links,
devices, and names with a path are refused.
"""

import gzip
import hashlib
import http.client
import io
import tarfile
import urllib.error
import urllib.request
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO
from urllib.parse import urlsplit

from rmploss import store
from rmploss.data import DATASETS
from rmploss.data._base import ProgressCallback, data_root
from rmploss.errors import DataError, Problem, UserError

CHUNK = 4 << 20
TIMEOUT_S = 30
MOST_FILES = 100
MOST_BYTES = 512 << 20


@dataclass(frozen=True)
class Archive:
    """A published .tar.gz of one folder of files.

    url: its address.
    sha256: its published checksum.
    size: in bytes.
    folder: the folder that it unpacks to.
    """

    url: str
    sha256: str
    size: int
    folder: str

    @property
    def file(self) -> str:
        """The archive's own name."""
        return PurePosixPath(urlsplit(self.url).path).name


ARCHIVES = {
    "cifar10": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
        170_498_071,
        "cifar-10-batches-py",
    ),
    "cifar100": Archive(
        "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
        169_001_437,
        "cifar-100-python",
    ),
}


def fetch(name: str, root: Path | None, progress: ProgressCallback | None = None) -> None:
    """Download and unpack a data set under `root`, unless it is complete.

    name: of the data set.
    root: the folder of the data sets; None: the default (`data_root`).
    progress: called with (bytes downloaded, bytes in total).
    Raises `UserError`, with the steps to take instead, for a set that cannot be fetched, and
    `DataError` for a failed download.
    """
    problems = DATASETS[name]().missing(root)
    if not problems:
        return
    if name not in ARCHIVES:
        raise UserError(f"{name} cannot be fetched: take these steps instead", problems)
    archive, root = ARCHIVES[name], data_root(root)
    folder = root / archive.folder
    if folder.exists():
        problem = Problem(str(folder), "exists, but is not complete", "remove it, then fetch again")
        raise DataError(f"{name} is not fetched over an existing folder", [problem])
    store.make_folder(root)
    path = root / archive.file
    download(archive, path, progress)
    store.write_folder(folder, unpack(read_verified(archive, path), archive.folder, str(path)))


def get(url: str, most_bytes: int) -> bytes:
    """The content at an address; `DataError` if it is longer or cannot be had."""
    try:
        with urllib.request.build_opener(_NoDowngrade).open(url, timeout=TIMEOUT_S) as reply:
            data = reply.read(most_bytes + 1)
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        problem = Problem(url, why, "try again later; is the address right?")
        raise DataError("the download failed", [problem]) from error
    if len(data) > most_bytes:
        raise DataError("the download failed", [Problem(url, f"more than {most_bytes} bytes")])
    return data


def download(archive: Archive, path: Path, progress: ProgressCallback | None = None) -> None:
    """Download the rest of the archive to `path`; `DataError` if that fails."""
    here = path.stat().st_size if path.exists() else 0
    if here >= archive.size:
        return
    request = urllib.request.Request(archive.url, headers={"Range": f"bytes={here}-"})
    try:
        with urllib.request.build_opener(_NoDowngrade).open(request, timeout=TIMEOUT_S) as reply:
            if here and not _continues(reply, here):
                store.remove(path)
                here = 0
            _append(reply, here, archive, path, progress)
    except (OSError, http.client.HTTPException) as error:
        why = str(error) or type(error).__name__
        raise _download_error(
            archive, why, f"try again later, or put {archive.file} in {path.parent}"
        ) from error


def _append(
    reply: IO[bytes], here: int, archive: Archive, path: Path, progress: ProgressCallback | None
) -> None:
    """Append the reply to `path`, never beyond the size of the archive."""
    while here < archive.size and (data := reply.read(min(CHUNK, archive.size - here))):
        store.append(path, data)
        here += len(data)
        if progress is not None:
            progress(here, archive.size)
    if here < archive.size:
        why = f"the connection ended after {here} of {archive.size} bytes"
        raise _download_error(archive, why, "fetch again: it continues from there")


def _continues(reply: http.client.HTTPResponse, here: int) -> bool:
    """True if the server sends the rest (206, from the requested byte), not the whole (200)."""
    return reply.status == 206 and reply.headers.get("Content-Range", "").startswith(
        f"bytes {here}-"
    )


def read_verified(archive: Archive, path: Path) -> bytes:
    """The content of the archive. Raises `DataError` if its SHA-256 is not the published one."""
    data = path.read_bytes()
    actual = hashlib.sha256(data).hexdigest()
    if actual == archive.sha256:
        return data
    page = ", a web page" if data[:512].lstrip()[:1] == b"<" else ""
    what = f"SHA-256 is {actual}, should be {archive.sha256} ({len(data)} bytes{page})"
    problem = Problem(str(path), what, "remove it, then fetch again")
    raise DataError("the archive is not the published one; nothing was unpacked", [problem])


def _download_error(archive: Archive, why: str, fix: str) -> DataError:
    return DataError("the download failed", [Problem(archive.url, why, fix)])


class _NoDowngrade(urllib.request.HTTPRedirectHandler):
    """Follow a redirection to https, or from http to http, and no other."""

    def redirect_request(self, req, fp, code, msg, headers, newurl):
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new != "https" and (old, new) != ("http", "http"):
            raise urllib.error.URLError(f"redirected from {old} to {new}, which is not followed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def unpack(
    archive: bytes,
    folder: str,
    source: str,
    *,
    most_files: int = MOST_FILES,
    most_bytes: int = MOST_BYTES,
) -> dict[str, bytes]:
    """The files of a .tar.gz, name -> content; all must be regular files directly in `folder`.

    archive: its bytes.
    folder: the only folder it may hold.
    source: its name, for messages.
    most_files, most_bytes: limits.
    Raises `DataError` for any other member and beyond the limits.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(archive)) as stream:
            content = stream.read(most_bytes + 1)
        if len(content) > most_bytes:
            raise _archive_error(source, f"more than {most_bytes} bytes unpacked")
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as tar:
            files = _files(tar, folder, source, most_files)
            # tarfile stops silently at the end of a cut-off archive; a complete one ends in zeros.
            if not files or not (rest := content[tar.offset :]) or any(rest):
                raise _archive_error(source, "it holds no files or is cut off")
            return files
    except UserError:
        raise
    except (OSError, EOFError, ValueError, zlib.error, tarfile.TarError) as error:
        raise _archive_error(source, f"not a valid .tar.gz: {error}") from error


def _files(tar: tarfile.TarFile, folder: str, source: str, most_files: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for member in tar:
        if member.isdir() and member.name == folder:
            continue
        top, _, name = member.name.partition("/")
        if not member.isreg() or member.issparse():
            raise _archive_error(source, f"{member.name!r} is not a regular file")
        if top != folder or not name or name.startswith(".") or set(name) & set("/\\:\0"):
            raise _archive_error(source, f"{member.name!r} is not directly in {folder!r}")
        if name in files:
            raise _archive_error(source, f"{member.name!r} occurs twice")
        if len(files) == most_files:
            raise _archive_error(source, f"more than {most_files} files")
        content = tar.extractfile(member)
        files[name] = content.read() if content is not None else b""
        if len(files[name]) != member.size:
            raise _archive_error(source, f"{member.name!r} is cut off")
    return files


def _archive_error(source: str, why: str) -> DataError:
    fix = "remove it, then get it again"
    return DataError("the archive is refused; nothing was unpacked", [Problem(source, why, fix)])
