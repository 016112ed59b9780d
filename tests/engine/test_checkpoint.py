"""Checkpoints come back bit for bit, or are refused with a reason; a cut-short save costs none."""

import errno
import json
import os
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor

from rmploss import _disk
from rmploss._disk import Operation
from rmploss.engine import checkpoint
from rmploss.engine.checkpoint import Counters
from rmploss.engine.optimizer_state import OptimizerState
from rmploss.errors import CheckpointError, StoreError

RECIPE = "c0ffee" * 8


def tensors(step: int) -> dict[str, Tensor]:
    return {
        "conv.weight": torch.randn(3, 2, generator=torch.Generator().manual_seed(step)),
        "norm.running_mean": torch.full((3,), float(step)),
        "norm.num_batches_tracked": torch.tensor(step),
    }


def save(folder: Path, step: int, **options: Any) -> Path:
    momentum = {"conv.weight/momentum_buffer": tensors(step)["conv.weight"] * 0.1}
    group = {"lr": 0.1 / 3, "betas": [0.9, 0.999], "nesterov": False, "params": ["conv.weight"]}
    known: dict[str, Any] = {
        "model_state": tensors(step),
        "optimizer_state": OptimizerState(momentum, {"conv.weight/calls": step}, (group,)),
        "counters": Counters(epoch=step // 10, step=step, batch=step % 10),
        "recipe_hash": RECIPE,
        "versions": {"rmploss": "0.1.0"},
    }
    return checkpoint.save(folder, **(known | options))


def load(folder: Path) -> checkpoint.Loaded:
    return checkpoint.load_latest(folder, recipe_hash=RECIPE, owner=True)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "ckpt").iterdir())


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.dtype == theirs[name].dtype
        assert tensor.shape == theirs[name].shape
        assert torch.equal(tensor, theirs[name])


def test_everything_comes_back(tmp_path: Path) -> None:
    odd = {
        "scalar": torch.tensor(0.1, dtype=torch.float64),
        "none": torch.empty(0, 3),
        "half": torch.randn(5).to(torch.bfloat16),
        "mask": torch.tensor([True, False]),
        "transposed": torch.arange(6.0).reshape(2, 3).T,
        "expanded": torch.ones(1, 3).expand(4, 3),
    }
    odd["tied"] = odd["half"]
    scaler = {"scale": 65536.0, "growth_factor": 2.0, "growth_interval": 2000, "_growth_tracker": 7}
    path = save(tmp_path, 12, model_state=odd, extra={"ema": tensors(1)["conv.weight"]},
                scaler_state=scaler, best=0.1 + 0.2)  # fmt: skip
    assert path == tmp_path / "ckpt" / "step-00000012"
    loaded = load(tmp_path)
    assert_same(loaded.model_state, odd)
    assert_same(loaded.extra, {"ema": tensors(1)["conv.weight"]})
    momentum = {"conv.weight/momentum_buffer": tensors(12)["conv.weight"] * 0.1}
    assert_same(dict(loaded.optimizer_state.tensors), momentum)
    assert loaded.optimizer_state.numbers == {"conv.weight/calls": 12}
    assert loaded.optimizer_state.groups[0]["lr"] == 0.1 / 3
    assert loaded.counters == Counters(epoch=1, step=12, batch=2)
    assert (loaded.scaler_state, loaded.best) == (scaler, 0.1 + 0.2)
    assert (loaded.versions, loaded.threads) == ({"rmploss": "0.1.0"}, torch.get_num_threads())
    assert (loaded.path, loaded.rejected) == (path, [])


def test_the_manifest_is_strict_json(tmp_path: Path) -> None:
    manifest = json.loads((save(tmp_path, 1, best=float("-inf")) / "manifest.json").read_text())
    assert manifest["best"] is None
    assert manifest["format"] == checkpoint.FORMAT
    assert manifest["files"]["state.safetensors"].keys() == {"bytes", "sha256"}


def test_the_manifest_is_written_last(tmp_path: Path) -> None:
    log: list[Operation] = []
    _disk.hooks.append(log.append)
    save(tmp_path, 1)
    _disk.hooks.remove(log.append)
    created = [operation.path.name for operation in log if operation.name == "create"]
    assert created == ["state.safetensors", "manifest.json"]


def test_the_newest_two_stay_and_those_to_spare(tmp_path: Path) -> None:
    for step in (5, 10, 90, 100, 101):
        save(tmp_path, step, spare=[10])
    assert names(tmp_path) == ["step-00000010", "step-00000100", "step-00000101"]
    with pytest.raises(CheckpointError, match="at least 2"):
        save(tmp_path, 102, keep=1)


def test_order_is_by_step_and_not_by_clock(tmp_path: Path) -> None:
    # Also beyond the eighth digit, where the order of words would be another.
    new, old = save(tmp_path, 100_000_000), save(tmp_path, 99_999_999)
    os.utime(new, (0, 0))
    assert checkpoint.saved(tmp_path) == [new, old]
    assert load(tmp_path).counters.step == 100_000_000


def test_one_step_saved_twice_overwrites_nothing(tmp_path: Path) -> None:
    for epoch in range(11):
        save(tmp_path, 7, counters=Counters(epoch, 7, 0))
    assert names(tmp_path) == ["step-00000007-10", "step-00000007-11"]
    assert load(tmp_path).counters.epoch == 10


@pytest.fixture
def snapshots(tmp_path: Path) -> Iterator[list[Path]]:
    """A copy of run/ as it was before every change of the disk: what a kill there would leave."""
    copies: list[Path] = []

    def copy(_: Operation) -> None:
        copies.append(tmp_path / f"copy-{len(copies)}")
        shutil.copytree(tmp_path / "run", copies[-1])

    _disk.hooks.append(copy)
    yield copies
    _disk.hooks.remove(copy)


def test_a_save_killed_at_any_change_leaves_a_checkpoint(
    tmp_path: Path, snapshots: list[Path]
) -> None:
    (tmp_path / "run").mkdir()
    save(tmp_path / "run", 1)
    save(tmp_path / "run", 2)
    before = len(snapshots)
    save(tmp_path / "run", 3)
    found = [load(copy) for copy in snapshots[before:]]
    steps = [loaded.counters.step for loaded in found]
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}
    for loaded in found:
        assert_same(loaded.model_state, tensors(loaded.counters.step))
        assert not loaded.rejected


def test_a_full_disk_costs_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, 1)

    def full(operation: Operation) -> None:
        if operation.name == "append":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    _disk.hooks.append(full)
    with pytest.raises(StoreError, match=r"step-00000002\n.*bytes needed"):
        save(tmp_path, 2)
    _disk.hooks.remove(full)
    assert names(tmp_path) == ["step-00000001"]
    assert load(tmp_path).counters.step == 1


@pytest.fixture
def pair(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with checkpoints 1 and 2; building a tensor from any bytes but those of 1 fails."""
    good = (save(tmp_path, 1) / "state.safetensors").read_bytes()
    save(tmp_path, 2)
    build = safetensors.torch.load

    def guarded(data: bytes) -> dict[str, Tensor]:
        assert data == good, "a tensor was built before its bytes were verified"
        return build(data)

    monkeypatch.setattr(safetensors.torch, "load", guarded)
    return tmp_path


@pytest.fixture
def read_only() -> Iterator[None]:
    """A disk that refuses every change."""

    def refuse(_: Operation) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    _disk.hooks.append(refuse)
    yield
    _disk.hooks.remove(refuse)


def assert_refused(run: Path, reason: str) -> None:
    """Checkpoint 2 is refused, 1 is loaded."""
    loaded = load(run)
    assert loaded.counters.step == 1
    assert_same(loaded.model_state, tensors(1))
    [(name, why)] = loaded.rejected
    assert name == "step-00000002"
    assert reason in why


def assert_falls_back(run: Path, reason: str) -> None:
    """Checkpoint 2 is refused and set aside, 1 is loaded; then everything is put back."""
    assert_refused(run, reason)
    assert names(run) == ["step-00000001", "step-00000002.corrupt"]
    (run / "ckpt" / "step-00000002.corrupt").rename(run / "ckpt" / "step-00000002")


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_truncated_anywhere(pair: Path, name: str) -> None:
    file = pair / "ckpt" / "step-00000002" / name
    data = file.read_bytes()
    for length in (*range(0, len(data), 64), len(data) - 1):
        file.write_bytes(data[:length])
        assert_falls_back(pair, name)
    file.write_bytes(data + b"\n")
    assert_falls_back(pair, name)


# On a read-only disk, where nothing is renamed: that saves a thousand syncs.
@pytest.mark.usefixtures("pair", "read_only")
@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_one_flipped_bit_in_any_byte(pair: Path, name: str) -> None:
    file = pair / "ckpt" / "step-00000002" / name
    data = file.read_bytes()
    bits = random.Random(1)
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << bits.randrange(8)
        file.write_bytes(damaged)
        assert_refused(pair, name)


@pytest.mark.parametrize("name", ["state.safetensors", "manifest.json"])
def test_a_missing_file_or_a_folder_in_its_place(pair: Path, name: str) -> None:
    file = pair / "ckpt" / "step-00000002" / name
    file.unlink()
    assert_falls_back(pair, f"{name} is missing")
    file.mkdir()
    assert_falls_back(pair, f"{name} is missing")


def test_files_of_two_checkpoints_are_not_mixed(pair: Path) -> None:
    one, two = (pair / "ckpt" / f"step-0000000{n}" for n in (1, 2))
    shutil.copy(two / "manifest.json", pair / "kept")
    shutil.copy(one / "manifest.json", two / "manifest.json")
    assert_falls_back(pair, "holds step 1")
    shutil.copy(pair / "kept", two / "manifest.json")
    shutil.copy(one / "state.safetensors", two / "state.safetensors")
    assert_falls_back(pair, "its SHA-256 differs")


def test_a_manifest_that_is_deep_is_refused(pair: Path) -> None:
    (pair / "ckpt" / "step-00000002" / "manifest.json").write_bytes(b"[" * 10**6)
    assert_falls_back(pair, "manifest.json is damaged")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, "has format 2, of rmploss 0.1.0; this reads 1"),
        ({"recipe_hash": "beef" * 16}, "is of recipe beefbeefbeef, not c0ffeec0ffee"),
    ],
)
def test_a_sound_checkpoint_that_is_not_ours_is_refused_and_kept(
    pair: Path, change: dict[str, Any], reason: str
) -> None:
    file = pair / "ckpt" / "step-00000002" / "manifest.json"
    manifest = json.loads(file.read_bytes()) | change
    del manifest["sha256"]
    file.write_bytes(checkpoint.seal(manifest))
    loaded = load(pair)
    assert (loaded.counters.step, loaded.rejected) == (1, [("step-00000002", reason)])
    assert names(pair) == ["step-00000001", "step-00000002"]
    # And it does not crowd out those of this run.
    assert save(pair, 1).name == "step-00000001-2"
    assert save(pair, 1).name == "step-00000001-3"
    assert names(pair) == ["step-00000001-2", "step-00000001-3", "step-00000002"]


def test_one_step_by_its_number(tmp_path: Path) -> None:
    for step in (5, 10, 20):
        save(tmp_path, step, spare=[5])
    save(tmp_path, 5, spare=[5], best=0.5)
    loaded = checkpoint.load_step(tmp_path, 5, recipe_hash=RECIPE)
    assert loaded.counters.step == 5
    assert loaded.best == 0.5  # The later one of the two.
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 6 .*there are: 20, 10, 5"):
        checkpoint.load_step(tmp_path, 6, recipe_hash=RECIPE)
    with pytest.raises(CheckpointError, match="is of recipe c0ffeec0ffee, not other"):
        checkpoint.load_step(tmp_path, 5, recipe_hash="other")
    (tmp_path / "ckpt" / "step-00000010" / "manifest.json").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"step-00000010 manifest\.json is damaged"):
        checkpoint.load_step(tmp_path, 10, recipe_hash=RECIPE)
    assert "step-00000010" in names(tmp_path)


def test_all_damaged_is_an_error_now_and_later(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.safetensors").write_bytes(b"")
    for reason in ("state.safetensors has 0 bytes", "was found damaged earlier"):
        with pytest.raises(CheckpointError, match="is intact") as caught:
            load(tmp_path)
        assert caught.value.exit_code == 7
        assert str(caught.value).count(reason) == 2
    with pytest.raises(CheckpointError, match="before it saved one"):
        load(tmp_path / "nothing")


@pytest.mark.usefixtures("pair", "read_only")
def test_damage_on_a_read_only_disk_is_refused_all_the_same(pair: Path) -> None:
    (pair / "ckpt" / "step-00000002" / "manifest.json").write_bytes(b"")
    for _ in range(2):
        assert_refused(pair, "manifest.json is damaged")
    assert names(pair) == ["step-00000001", "step-00000002"]


def test_damage_set_aside_twice_keeps_both(tmp_path: Path) -> None:
    save(tmp_path, 1)
    for _ in range(2):
        (save(tmp_path, 2) / "manifest.json").write_bytes(b"")
        assert load(tmp_path).counters.step == 1
    damaged = ["step-00000002.corrupt", "step-00000002.corrupt-2"]
    assert names(tmp_path) == ["step-00000001", *damaged]


def test_a_reader_refuses_a_damaged_checkpoint_and_changes_nothing(tmp_path: Path) -> None:
    for step in (1, 2):
        save(tmp_path, step)
    state = tmp_path / "ckpt" / "step-00000002" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1])
    loaded = checkpoint.load_latest(tmp_path, recipe_hash=RECIPE)
    assert loaded.counters.step == 1
    assert [name for name, _ in loaded.rejected] == ["step-00000002"]
    assert names(tmp_path) == ["step-00000001", "step-00000002"]
