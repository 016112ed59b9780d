"""A pack is loaded, verified and measured again, from a folder or from a hub."""

import hashlib
import json
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

import rmploss
from rmploss.cli import main
from rmploss.data import Key
from rmploss.engine import pack, train
from rmploss.engine.checkpoint import seal
from rmploss.errors import ClaimError, DataError, UserError
from rmploss.export.pack_run import pack_run
from tests.engine.runs import TINY
from tests.engine.test_go_on import EVERY_STEP, Dying

pytest.importorskip("onnxruntime", reason="pip install 'rmploss[export]'")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train.train(TINY, tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="module")
def packed(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The pack of `run`, and the hash of its manifest."""
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    claims, sha256 = pack_run(run, folder)
    assert claims.samples == 64
    return folder, sha256


@pytest.fixture
def copied(packed: tuple[Path, str], tmp_path: Path) -> Path:
    return Path(shutil.copytree(packed[0], tmp_path / "copied"))


def inputs(net: Any) -> torch.Tensor:
    test = net.dataset.open(None, seed=0, T=2).test
    return torch.stack([test[Key(0, index)][0] for index in range(4)])


def test_a_pack_is_the_network_of_its_run(packed: tuple[Path, str], run: Path) -> None:
    folder, sha256 = packed
    there, here = rmploss.load(run), rmploss.load(folder)
    assert here.recipe == there.recipe
    assert torch.equal(here.logits(inputs(here)), there.logits(inputs(there)))
    names = {path.name for path in folder.iterdir()}
    assert {"model.safetensors", "model.onnx", "README.md", "pack.json", "parity.json"} <= names
    assert hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest() == sha256
    assert "64" in (folder / "README.md").read_text()


def test_a_pack_of_an_unfinished_run_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the machine failed"):
        train.train(TINY.but(epochs=4), tmp_path, listener=Dying(epoch=2, done=1))
    (path,) = tmp_path.iterdir()
    notes: list[str] = []
    pack_run(path, tmp_path / "pack", on_note=notes.append)
    assert "the training was not finished: 1 of 4 epochs" in notes
    assert "(seed 0, 1 of 4 epochs, not finished)" in (tmp_path / "pack" / "README.md").read_text()


def test_a_pack_of_a_run_that_was_stopped_in_its_last_epoch_says_so(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the machine failed"):
        train.train(TINY, tmp_path, EVERY_STEP, Dying(epoch=TINY.epochs, done=2))
    (path,) = tmp_path.iterdir()
    pack_run(path, tmp_path / "pack")
    said = f"{TINY.epochs - 1} of {TINY.epochs} epochs, not finished"
    assert said in (tmp_path / "pack" / "README.md").read_text()


def test_the_best_epoch_of_a_finished_run_is_named(run: Path, tmp_path: Path) -> None:
    notes: list[str] = []
    pack_run(run, tmp_path / "pack", checkpoint="best", on_note=notes.append)
    card = (tmp_path / "pack" / "README.md").read_text()
    assert f"of {TINY.epochs})." in card
    assert "(seed 0, epoch " in card
    assert "not finished" not in card + " ".join(notes)


def test_no_file_of_a_pack_is_a_pickle(packed: tuple[Path, str]) -> None:
    """A pickle begins with the opcode PROTO; archives may hold one."""
    for path in packed[0].iterdir():
        head = path.read_bytes()[:4]
        assert not head.startswith((b"\x80", b"PK\x03\x04")), path.name


def test_evaluation_measures_what_a_pack_claims(
    packed: tuple[Path, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["eval", str(packed[0]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["accuracy"] == pack.claims_of(packed[0]).accuracy


def test_a_wrong_claim_has_an_exit_code(copied: Path, capsys: pytest.CaptureFixture[str]) -> None:
    facts = json.loads((copied / "pack.json").read_text())
    facts["claims"]["accuracy"] += 100 * 2 / 64  # two samples of 64
    rewrite(copied, "pack.json", json.dumps(facts).encode())
    assert main(["eval", str(copied)]) == ClaimError.exit_code == 12
    assert "claimed" in capsys.readouterr().err
    facts["claims"]["accuracy"] -= 100 / 64  # one sample may round to another class
    rewrite(copied, "pack.json", json.dumps(facts).encode())
    assert main(["eval", str(copied)]) == 0


def rewrite(folder: Path, name: str, data: bytes) -> None:
    """Another content of a file, with a manifest that lists it."""
    (folder / name).write_bytes(data)
    listed = json.loads((folder / "manifest.json").read_text())
    del listed["sha256"]
    described = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    listed["files"][name] = described
    (folder / "manifest.json").write_bytes(seal(listed))


@pytest.mark.parametrize("name", ["model.safetensors", "recipe.json", "manifest.json"])
def test_a_damaged_pack_is_not_loaded(name: str, copied: Path) -> None:
    data = (copied / name).read_bytes()
    (copied / name).write_bytes(data[:-40] + bytes([data[-40] ^ 1]) + data[-39:])
    with pytest.raises(UserError, match=r"damaged|trusted|not that of the run"):
        rmploss.load(copied)


def test_a_pack_is_not_written_over_a_folder_nor_packed_again(
    run: Path, packed: tuple[Path, str]
) -> None:
    with pytest.raises(UserError, match="the folder of the pack exists"):
        pack_run(run, packed[0])
    with pytest.raises(UserError, match="is not packed again"):
        pack_run(packed[0], packed[0].with_name("again"))
    with pytest.raises(UserError, match="no other weights"):
        rmploss.load(packed[0], checkpoint="best")


# A hub on this machine ---------------------------------------------------------------------------


class Quiet(SimpleHTTPRequestHandler):
    """Serves a folder, as a hub does, and prints nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def hub(
    packed: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Path]:
    """The folder from which owner/tiny@v1 is served."""
    served = tmp_path / "hub" / "owner" / "tiny" / "resolve" / "v1"
    shutil.copytree(packed[0], served)
    handler = partial(Quiet, directory=str(tmp_path / "hub"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("RMPLOSS_HUB", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("RMPLOSS_CACHE", str(tmp_path / "cache"))
    yield served
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_pack_from_a_hub(hub: Path, packed: tuple[Path, str]) -> None:
    reference = f"hf:owner/tiny@v1#{packed[1]}"
    net = rmploss.load(reference)
    assert torch.equal(net.logits(inputs(net)), rmploss.load(packed[0]).logits(inputs(net)))
    shutil.rmtree(hub)  # from now on it is here
    assert rmploss.load(reference).source == net.source
    assert main(["eval", reference]) == 0


def test_another_content_is_refused(hub: Path, packed: tuple[Path, str]) -> None:
    reference = f"hf:owner/tiny@v1#{packed[1]}"
    weights = hub / "model.safetensors"
    data = weights.read_bytes()
    weights.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(DataError, match="SHA-256"):
        rmploss.load(reference)
    rewrite(hub, "model.safetensors", weights.read_bytes())  # a manifest that vouches for it
    with pytest.raises(DataError, match="not the one of the reference"):
        rmploss.load(reference)


def test_a_manifest_cannot_leave_the_folder(hub: Path) -> None:
    listed = json.loads((hub / "manifest.json").read_text())
    del listed["sha256"]
    listed["files"]["../evil"] = {"bytes": 1, "sha256": "0" * 64}
    sealed = seal(listed)
    (hub / "manifest.json").write_bytes(sealed)
    with pytest.raises(DataError, match=r"\.\./evil"):
        rmploss.load(f"hf:owner/tiny@v1#{hashlib.sha256(sealed).hexdigest()}")


@pytest.mark.parametrize("reference", ["hf:owner/tiny", "hf:owner/tiny@v1", "hf:owner/tiny@v1#ab"])
def test_a_reference_is_pinned(reference: str) -> None:
    with pytest.raises(UserError, match="not a pinned pack"):
        rmploss.load(reference)


def test_an_absent_pack(hub: Path) -> None:
    with pytest.raises(DataError, match="the download failed"):
        rmploss.load("hf:owner/other@v1#" + "0" * 64)
