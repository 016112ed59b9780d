"""Trackers: what they are told, that they end no run, and that resumed runs go on in them."""

import importlib
import json
import math
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rmploss.cli import main
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.engine.verify import verify
from rmploss.errors import InterruptedRunError, UserError
from rmploss.track import Guarded, Several, scalars, tracker
from rmploss.track.wandb import identity
from tests.engine.runs import TINY, Interrupting

EPOCHS = 3
RECIPE = TINY.but(epochs=EPOCHS)


class Broken(Listener):
    """Raises at one of its callbacks."""

    def __init__(self, at: str) -> None:
        self.at = at
        self.calls: list[str] = []

    def _see(self, name: str) -> None:
        self.calls.append(name)
        if name == self.at:
            raise ConnectionError("no route\nto host")

    def begin(self, *_: Any, **__: Any) -> None:
        self._see("begin")

    def epoch(self, record: dict[str, Any]) -> None:
        self._see("epoch")

    def end(self, summary: dict[str, Any]) -> None:
        self._see("end")

    def close(self) -> None:
        self._see("close")


@pytest.mark.parametrize("at", ["begin", "epoch", "end", "close"])
def test_an_error_in_a_tracker_is_told_once_and_the_run_goes_on(at: str, tmp_path: Path) -> None:
    told: list[str] = []
    broken = Broken(at)
    guarded = Guarded("wandb", broken, told.append)
    path = train(RECIPE, tmp_path, listener=Several(Listener(), guarded))
    guarded.close()
    guarded.close()
    assert (path / "result.json").is_file()
    assert told == ["warning: wandb gets nothing more (ConnectionError: no route); the run goes on"]
    assert broken.calls.count(at) == 1
    assert broken.calls[-1] == "close"
    assert broken.calls.count("close") == 1


def test_a_tracker_that_fails_twice_is_told_once() -> None:
    class Twice(Broken):
        def _see(self, name: str) -> None:
            super()._see(name)
            raise SystemExit(name)

    told: list[str] = []
    twice = Twice("epoch")
    guarded = Guarded("wandb", twice, told.append)
    guarded.epoch({})
    guarded.close()
    assert twice.calls == ["epoch", "close"]
    assert len(told) == 1


def test_several_listeners_hear_everything(tmp_path: Path) -> None:
    class Heard(Listener):
        def __init__(self) -> None:
            self.calls: list[str] = []

        def __getattribute__(self, name: str) -> Any:
            if name in vars(Listener) and not name.startswith("_"):
                self.calls.append(name)
            return super().__getattribute__(name)

    first, second = Heard(), Heard()
    both = Several(first, second)
    train(TINY, tmp_path, listener=both)
    both.loading("x", 1, 1)
    both.close()
    assert first.calls == second.calls
    expected = {name for name in vars(Listener) if not name.startswith("_")} - {"note"}
    assert expected <= {*first.calls}


def test_curves_are_all_numbers_of_an_epoch() -> None:
    record = {
        "epoch": 2,
        "step": 8,
        "lr": 0.1,
        "lambda": 0.05,
        "train_loss": 1.5,
        "train_accuracy": 50.0,
        "test_ce": None,
        "quantization_error": 0.2,
        "averaged_accuracy": 60.0,
        "train_s": 3.0,
        "layers": {"lif1": {"firing_rate": 0.25}},
        "other": 1,
    }
    assert scalars(record) == {
        "schedule/lr": 0.1,
        "schedule/lambda": 0.05,
        "train/loss": 1.5,
        "train/accuracy": 50.0,
        "test/quantization_error": 0.2,
        "averaged/accuracy": 60.0,
        "seconds/train": 3.0,
        "layers/lif1 firing_rate": 0.25,
        "run/other": 1.0,
    }


def test_a_missing_package_is_named_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    words = ["train", "digits-rmp", "--track", "wandb", "--runs-dir", str(tmp_path / "runs")]
    assert main(words) == 2
    assert "pip install 'rmploss[track]'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
    with pytest.raises(UserError, match="tensorboard"):
        tracker("tensorbord", print)


def in_tensorboard(path: Path) -> dict[str, list[tuple[int, float]]]:
    """The curves of a run as TensorBoard reads them: (step, value)."""
    accumulator = importlib.import_module(
        "tensorboard.backend.event_processing.event_accumulator"
    ).EventAccumulator(str(path / "tensorboard"))
    accumulator.Reload()
    return {
        name: [(event.step, event.value) for event in accumulator.Scalars(name)]
        for name in accumulator.Tags()["scalars"]
    }


def require_all_epochs(path: Path, found: dict[str, list[tuple[int, float]]]) -> None:
    """Every curve has every epoch once, with the numbers of metrics.jsonl."""
    records = [scalars(record) for record in RunFolder.open(path).metrics()]
    assert len(records) == EPOCHS
    assert {*found} == {*records[0]}
    for name, points in found.items():
        assert [step for step, _ in points] == [1, 2, 3]
        for (_, value), record in zip(points, records, strict=True):
            assert math.isclose(value, record[name], rel_tol=1e-6, abs_tol=1e-12)


class Lossy(Listener):
    """Loses the record of the first epoch, as a process that dies just before it would."""

    def __init__(self, inner: Listener) -> None:
        self.begin, self.end, self.close = inner.begin, inner.end, inner.close
        self.inner = inner

    def epoch(self, record: dict[str, Any]) -> None:
        if record["epoch"] > 1:
            self.inner.epoch(record)


@pytest.fixture
def told() -> list[str]:
    return []


def test_tensorboard_reads_one_curve_of_a_resumed_run(tmp_path: Path, told: list[str]) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install '.[track]'")
    listener = tracker("tensorboard", told.append)
    stopped = Several(Lossy(listener), Interrupting("train", 3, 1, signal.SIGTERM))
    with pytest.raises(InterruptedRunError):
        train(RECIPE, tmp_path, listener=stopped)
    listener.close()
    (path,) = tmp_path.iterdir()
    assert [step for step, _ in in_tensorboard(path)["test/accuracy"]] == [2]
    for name in (path / "tensorboard").iterdir():
        name.unlink()  # both epochs are written again
    assert resume(path, listener=tracker("tensorboard", told.append)) == path
    require_all_epochs(path, in_tensorboard(path))
    assert len([*(path / "tensorboard").iterdir()]) == 1
    assert told == []
    assert verify(path).damages == []


def test_tensorboard_forgets_epochs_after_the_checkpoint(tmp_path: Path, told: list[str]) -> None:
    pytest.importorskip("tensorboard", reason="needs tensorboard: pip install '.[track]'")
    path = train(RECIPE, tmp_path, listener=tracker("tensorboard", told.append))
    records = RunFolder.open(path).metrics()
    again = tracker("tensorboard", told.append)
    again.begin(RECIPE, path, epoch=1, device="cpu")
    again.epoch({**records[1], "test_accuracy": 12.5})
    again.close()
    found = in_tensorboard(path)["test/accuracy"]
    assert found == [(1, records[0]["test_accuracy"]), (2, 12.5)]
    assert told == []


BLOCK = 32768
"""The blocks of a log of LevelDB, in whose form W&B writes its files."""


def logged(data: bytes) -> Iterator[bytes]:
    """The records of a file of W&B: 7 bytes, then blocks of (CRC, length, kind, content)."""
    place, whole = 7, b""
    while place + 7 <= len(data):
        if BLOCK - place % BLOCK < 7:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, place)
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # all of it, or its last part
            yield whole
            whole = b""


def complete(file: Path) -> list[Any]:
    """The records of a file; the process of W&B that writes it may take a moment more."""
    message = importlib.import_module("wandb.proto.wandb_internal_pb2").Record
    for _ in range(600):
        records = [message.FromString(data) for data in logged(file.read_bytes())]
        if any(record.HasField("exit") for record in records):
            return records
        time.sleep(0.1)
    raise AssertionError(f"{file} has no end")


def in_wandb(path: Path) -> list[dict[str, Any]]:
    """The id and the rows of each part of a run that W&B wrote offline."""
    found = []
    for file in sorted((path / "wandb").glob("offline-run-*/*.wandb")):
        rows, name = [], ""
        for record in complete(file):
            if record.HasField("run"):
                name = record.run.run_id
            if record.HasField("history"):
                items = record.history.item
                rows.append(
                    {i.key or "/".join(i.nested_key): json.loads(i.value_json) for i in items}
                )
        found.append({"id": name, "rows": rows})
    return found


def test_wandb_offline_goes_on_under_one_id(
    tmp_path: Path, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb", reason="needs wandb: pip install '.[track]'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    listener = tracker("wandb", told.append)
    stopped = Several(listener, Interrupting("train", 3, 1, signal.SIGTERM))
    with pytest.raises(InterruptedRunError):
        train(RECIPE, tmp_path, listener=stopped)
    listener.close()
    (path,) = tmp_path.iterdir()
    assert resume(path, listener=tracker("wandb", told.append)) == path
    assert told == []
    parts = in_wandb(path)
    assert [part["id"] for part in parts] == [identity(path)] * 2
    rows = [row for part in parts for row in part["rows"]]
    points = {
        name: [(row["epoch"], row[name]) for row in rows]
        for name in rows[0]
        if not name.startswith("_") and name != "epoch"
    }
    require_all_epochs(path, points)
    assert verify(path).damages == []
