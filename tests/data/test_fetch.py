import gzip
import hashlib
import http.server
import io
import tarfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.client import HTTPMessage
from pathlib import Path

import pytest

from rmploss.data import fetch as module
from rmploss.data.cifar import CIFAR10
from rmploss.data.fetch import Archive, _NoDowngrade, fetch, unpack
from rmploss.errors import DataError, UserError

FOLDER = "cifar-10-batches-py"
FILES = {file: file.encode() * 400 for file in (*CIFAR10.train_files, *CIFAR10.test_files)}


def _tar(members: list[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for member, data in members:
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return stream.getvalue()


def _member(
    name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644
) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.mode = kind, link, mode
    return member


def _targz(files: dict[str, bytes] = FILES, extra: tuple[tarfile.TarInfo, ...] = ()) -> bytes:
    members = [(_member(FOLDER, tarfile.DIRTYPE), b"")]
    members += [(_member(f"{FOLDER}/{name}"), data) for name, data in files.items()]
    return gzip.compress(_tar([*members, *((member, b"") for member in extra)]), mtime=0)


GOOD = _targz()


class Server:
    """Serves one body; `cut` ends a reply early, `ranges` allows requests for a part."""

    def __init__(self) -> None:
        self.body, self.ranges, self.status = GOOD, True, 200
        self.cut: int | None = None
        self.location = ""
        self.asked: list[str] = []
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.01,))
        self.thread.start()

    def answer(self, handler: http.server.BaseHTTPRequestHandler) -> None:
        asked = handler.headers.get("Range", "")
        self.asked.append(asked)
        start = int(asked.removeprefix("bytes=").removesuffix("-") or 0) if self.ranges else 0
        body = self.body[start:]
        handler.send_response(self.status if self.status != 200 else 206 if start else 200)
        if self.location:
            handler.send_header("Location", self.location)
        if start:
            handler.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/*")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body[: self.cut])


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.http.shutdown()
    server.thread.join()
    server.http.server_close()


@pytest.fixture
def archive(server: Server, monkeypatch: pytest.MonkeyPatch) -> Archive:
    """The archive that `fetch("cifar10")` downloads in these tests."""
    digest = hashlib.sha256(GOOD).hexdigest()
    archive = Archive(f"{server.url}/a/cifar.tar.gz?v=1", digest, len(GOOD), FOLDER)
    monkeypatch.setattr(module, "ARCHIVES", {"cifar10": archive})
    monkeypatch.setattr(module, "CHUNK", 100)
    return archive


def _complete(root: Path) -> bool:
    folder = root / FOLDER
    return folder.is_dir() and {p.name: p.read_bytes() for p in folder.iterdir()} == FILES


def test_fetches_verifies_and_unpacks(archive: Archive, server: Server, tmp_path: Path) -> None:
    root, calls = tmp_path / "new" / "data", []
    fetch("cifar10", root, lambda done, total: calls.append((done, total)))
    assert _complete(root)
    assert CIFAR10().missing(root) == []
    assert calls[-1] == (len(GOOD), len(GOOD))
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})
    fetch("cifar10", root)
    assert server.asked == ["bytes=0-"], "existing data is not fetched again"
    assert sorted(path.name for path in root.iterdir()) == [FOLDER, "cifar.tar.gz"]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_download_goes_on(
    archive: Archive, server: Server, tmp_path: Path, ranges: bool
) -> None:
    server.cut = len(GOOD) // 2
    with pytest.raises(DataError, match=f"ended after {server.cut} of {len(GOOD)} bytes"):
        fetch("cifar10", tmp_path)
    assert not (tmp_path / FOLDER).exists()
    assert (tmp_path / "cifar.tar.gz").stat().st_size == server.cut
    server.asked.clear()
    server.cut, server.ranges = None, ranges
    fetch("cifar10", tmp_path)
    assert server.asked == [f"bytes={len(GOOD) // 2}-"]
    assert _complete(tmp_path)


def test_an_archive_put_there_by_hand_needs_no_network(
    tmp_path: Path, archive: Archive, server: Server
) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(GOOD)
    fetch("cifar10", tmp_path)
    assert _complete(tmp_path)
    assert server.asked == []


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda good: good[:100] + bytes([good[100] ^ 1]) + good[101:], "should be"),
        (lambda good: b"<!DOCTYPE html>".ljust(len(good)), "a web page"),
        (lambda good: good + b"more than was promised", None),
        (lambda good: good[:-1], "ended after"),
        (lambda good: b"", "ended after 0"),
    ],
    ids=["flipped", "web page", "longer", "shorter", "empty"],
)
def test_another_content_is_refused_before_it_is_parsed(
    change: Callable[[bytes], bytes],
    word: str | None,
    archive: Archive,
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server.body = change(GOOD)
    if word is None:  # of a longer one only the promised bytes are read, and these are good
        fetch("cifar10", tmp_path)
        assert (tmp_path / "cifar.tar.gz").read_bytes() == GOOD
        return
    monkeypatch.setattr(module, "unpack", lambda *_: pytest.fail("parsed"))
    with pytest.raises(DataError, match=word):
        fetch("cifar10", tmp_path)
    assert not (tmp_path / FOLDER).exists()


def test_a_wrong_archive_is_not_accepted_later_either(
    archive: Archive, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "cifar.tar.gz").write_bytes(bytes(len(GOOD)))
    for _ in range(2):
        with pytest.raises(DataError, match="remove it, then fetch again"):
            fetch("cifar10", tmp_path)
    (tmp_path / "cifar.tar.gz").unlink()
    fetch("cifar10", tmp_path)
    assert _complete(tmp_path)


def test_a_server_that_refuses_or_is_not_there_is_explained(
    archive: Archive, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.status = 404
    with pytest.raises(DataError, match=r"404.*or put cifar\.tar\.gz in"):
        fetch("cifar10", tmp_path)
    closed = replace(archive, url="http://127.0.0.1:9/cifar.tar.gz")
    monkeypatch.setattr(module, "ARCHIVES", {"cifar10": closed})
    with pytest.raises(DataError, match="refused"):
        fetch("cifar10", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_redirection_to_another_scheme_is_not_followed(
    archive: Archive, server: Server, tmp_path: Path
) -> None:
    server.status, server.location = 302, f"file://{tmp_path}/secret"
    with pytest.raises(DataError, match=r"redirect|not allowed|not followed"):
        fetch("cifar10", tmp_path)
    redirect = _NoDowngrade().redirect_request
    request = urllib.request.Request("https://there/a")
    for url in ("http://there/a", "ftp://there/a"):
        with pytest.raises(urllib.error.URLError, match="from https to"):
            redirect(request, io.BytesIO(), 302, "Found", HTTPMessage(), url)
    followed = redirect(request, io.BytesIO(), 302, "Found", HTTPMessage(), "https://else/a")
    assert followed is not None
    assert followed.full_url == "https://else/a"


def test_an_incomplete_folder_is_not_written_over(
    archive: Archive, server: Server, tmp_path: Path
) -> None:
    (tmp_path / FOLDER).mkdir()
    (tmp_path / FOLDER / "mine").write_text("mine")
    with pytest.raises(DataError, match="remove it, then fetch again"):
        fetch("cifar10", tmp_path)
    assert (tmp_path / FOLDER / "mine").read_text() == "mine"
    assert server.asked == []


def test_sets_that_cannot_be_fetched_tell_the_steps(tmp_path: Path) -> None:
    for name, word in (
        ("imagenet", "image-net.org"),
        ("cifar10-dvs", "figshare"),
        ("nmnist", "Train.zip"),
    ):
        with pytest.raises(UserError, match=word):
            fetch(name, tmp_path)
    fetch("digits", tmp_path)
    with pytest.raises(UserError, match="cifar10"):
        fetch("cifar-10", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_published_archives_unpack_to_the_folders_that_are_read() -> None:
    from torchvision.datasets import cifar

    for archive, theirs in (
        (module.ARCHIVES["cifar10"], cifar.CIFAR10),
        (module.ARCHIVES["cifar100"], cifar.CIFAR100),
    ):
        assert archive.url == theirs.url
        assert archive.file == theirs.filename
        assert archive.folder == theirs.base_folder


def test_unpack_gives_plain_files() -> None:
    assert unpack(GOOD, FOLDER, "a.tar.gz") == FILES


@pytest.mark.parametrize(
    ("member", "why"),
    [
        (_member("../evil"), "is not directly in"),
        (_member("/etc/evil"), "is not directly in"),
        (_member(f"{FOLDER}/../evil"), "is not directly in"),
        (_member(f"{FOLDER}/.hidden"), "is not directly in"),
        (_member(f"{FOLDER}/deep/evil"), "is not directly in"),
        (_member(f"{FOLDER}-evil/file"), "is not directly in"),
        (_member(f"{FOLDER}\\evil"), "is not directly in"),
        (_member("evil"), "is not directly in"),
        (_member(f"{FOLDER}/link", tarfile.SYMTYPE, "/etc/passwd"), "is not a regular file"),
        (_member(f"{FOLDER}", tarfile.SYMTYPE, "/etc"), "is not a regular file"),
        (
            _member(f"{FOLDER}/link", tarfile.LNKTYPE, f"{FOLDER}/test_batch"),
            "is not a regular file",
        ),
        (_member(f"{FOLDER}/device", tarfile.CHRTYPE), "is not a regular file"),
        (_member(f"{FOLDER}/fifo", tarfile.FIFOTYPE), "is not a regular file"),
        (_member(f"{FOLDER}/folder", tarfile.DIRTYPE), "is not a regular file"),
        (_member(f"{FOLDER}/test_batch"), "occurs twice"),
    ],
    ids=lambda value: value.name if isinstance(value, tarfile.TarInfo) else "",
)
def test_unpack_refuses_whatever_is_not_a_plain_file_in_place(
    member: tarfile.TarInfo, why: str
) -> None:
    with pytest.raises(DataError, match=why):
        unpack(_targz(extra=(member,)), FOLDER, "a.tar.gz")


def test_unpack_takes_no_modes_from_the_archive(
    tmp_path: Path, archive: Archive, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [(_member(f"{FOLDER}/{name}", mode=0o6777), data) for name, data in FILES.items()]
    data = gzip.compress(_tar(members))
    changed = replace(archive, sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    monkeypatch.setattr(module, "ARCHIVES", {"cifar10": changed})
    server.body = data
    fetch("cifar10", tmp_path)
    assert _complete(tmp_path)
    assert all(not path.stat().st_mode & 0o7111 for path in (tmp_path / FOLDER).iterdir())


def test_unpack_has_limits() -> None:
    bomb = gzip.compress(bytes(20 << 20))
    with pytest.raises(DataError, match="more than 1000000 bytes"):
        unpack(bomb, FOLDER, "a.tar.gz", most_bytes=1_000_000)
    many = _targz({f"file{number}": b"" for number in range(101)})
    with pytest.raises(DataError, match="more than 100 files"):
        unpack(many, FOLDER, "a.tar.gz")


@pytest.mark.parametrize(
    "data",
    [b"", b"PK\x03\x04", gzip.compress(b"no tar"), _tar([]), GOOD[:-9], GOOD[:60]],
    ids=["empty", "zip", "no tar", "no file", "cut", "cut early"],
)
def test_unpack_refuses_what_is_no_targz(data: bytes) -> None:
    with pytest.raises(DataError, match=r"a\.tar\.gz"):
        unpack(data, FOLDER, "a.tar.gz")


def test_unpack_refuses_a_member_that_is_cut_off() -> None:
    tar = gzip.decompress(GOOD)
    for length in (512, 700, 1100, 3000, 6144, 6200, len(tar.rstrip(b"\0"))):
        with pytest.raises(DataError):
            unpack(gzip.compress(tar[:length]), FOLDER, "a.tar.gz")
