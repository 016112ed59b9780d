"""The run folder: created whole or not at all, appended to, cut back, read again."""

import hashlib
import io
import json
import math
import os
import zipfile
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss import _disk
from rmploss.engine import environment, run
from rmploss.engine.checkpoint import Counters
from rmploss.engine.run import RunFolder, parse_line
from rmploss.errors import LockedError, StoreError, UserError

RECIPE: dict[str, Any] = {"seed": 3, "lr": 0.1, "milestones": [60, 90], "name": "digits"}


def create(parent: Path, name: str = "digits") -> RunFolder:
    return RunFolder.create(parent, name, RECIPE, command=["rmploss", "train"])


def test_create_makes_a_folder_that_explains_itself(tmp_path: Path) -> None:
    folder = create(tmp_path / "new" / "runs")
    short = hashlib.sha256(json.dumps(RECIPE, sort_keys=True).encode()).hexdigest()[:4]
    assert folder.path == tmp_path / "new" / "runs" / f"digits-s3-{short}"
    assert sorted(path.name for path in folder.path.iterdir()) == [
        "events.jsonl",
        "recipe.json",
        "source.zip",
    ]
    assert folder.stored_recipe() == RECIPE
    with zipfile.ZipFile(folder.path / "source.zip") as source:
        assert source.read("rmploss/engine/run/__init__.py") == Path(run.__file__).read_bytes()
        assert all(name.endswith(".py") for name in source.namelist())
    [start] = folder.events()
    assert start["event"] == "start"
    assert start["command"] == ["rmploss", "train"]
    assert start["environment"]["torch"] == torch.__version__
    assert datetime.fromisoformat(start["time"]).utcoffset() is not None
    assert folder.metrics() == []


def test_a_taken_name_gets_a_number(tmp_path: Path) -> None:
    names = [create(tmp_path).path.name for _ in range(3)]
    assert [name.removeprefix(names[0]) for name in names] == ["", "-2", "-3"]


def test_a_name_that_is_no_utf8_is_recorded_and_read_as_it_was(tmp_path: Path) -> None:
    odd = os.fsdecode(b"caf\xe9")
    recipe = RECIPE | {"data.path": odd}
    folder = RunFolder.create(tmp_path / odd, "digits", recipe, command=["rmploss", odd])
    folder.log_event("data", path=odd)
    assert folder.stored_recipe() == recipe
    assert [event.get("command") or event["path"] for event in folder.events()] == [
        ["rmploss", odd],
        odd,
    ]
    assert b"caf\\udce9" in (folder.path / "events.jsonl").read_bytes()


def test_the_hash_does_not_depend_on_the_order_of_fields() -> None:
    assert run.recipe_hash(RECIPE) == run.recipe_hash(dict(reversed(RECIPE.items())))
    assert run.recipe_hash(RECIPE) != run.recipe_hash(RECIPE | {"seed": 4})


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("", "is empty"),
        ("a/b", "path separator"),
        ("..", "begins with '.'"),
        ("..\\up", "path separator"),
        ("-rf", "begins with"),
        ("a\nb", "control character"),
        ("a\u202eb", "control character"),
        (" a", "blank"),
        ("a" * 101, "101 characters"),
    ],
)
def test_bad_names_are_refused_and_nothing_is_made(tmp_path: Path, name: str, what: str) -> None:
    with pytest.raises(UserError, match=what):
        create(tmp_path / "runs", name)
    assert not (tmp_path / "runs").exists()


def test_a_place_that_cannot_be_written_is_reported_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "runs").write_bytes(b"")
    with pytest.raises(StoreError, match="move it away"):
        create(tmp_path / "runs")


def test_a_run_in_the_folder_of_runs_or_in_the_path_is_named(tmp_path: Path) -> None:
    folder = create(tmp_path / "runs")
    for wrong in (folder.path.name, "digit-s3"):
        with pytest.raises(UserError, match=f"did you mean {folder.path}"):
            RunFolder.open(tmp_path / wrong)
    with pytest.raises(UserError, match=f"one of the runs in it: {folder.path}"):
        RunFolder.open(tmp_path / "runs")


def test_open(tmp_path: Path) -> None:
    folder = create(tmp_path)
    assert RunFolder.open(folder.path) == folder
    with pytest.raises(UserError, match=f"did you mean {folder.path}"):
        RunFolder.open(tmp_path / "digit-s3")
    with pytest.raises(UserError, match=r"holds no recipe\.json"):
        RunFolder.open(tmp_path)


@pytest.mark.parametrize(
    ("damage", "what"),
    [
        (lambda text: text.replace('"lr": 0.1', '"lr": 0.2'), "was changed after the run began"),
        (lambda text: text[:-9], "the recipe is damaged"),
        (lambda _: "[]", "holds no recipe"),
        (lambda _: "{}", "holds no recipe"),
    ],
)
def test_a_changed_recipe_is_refused(tmp_path: Path, damage: Any, what: str) -> None:
    folder = create(tmp_path)
    file = folder.path / "recipe.json"
    file.write_text(damage(file.read_text()))
    with pytest.raises(UserError, match=what):
        folder.stored_recipe()


def test_metrics_are_exact_lines_in_the_order_given(tmp_path: Path) -> None:
    folder = create(tmp_path)
    record = {"step": 20, "epoch": 1, "loss": 0.1 + 0.2, "layers": {"λ": {"rate": 1e-300}}}
    folder.log_metrics(record)
    line = (
        '{"step": 20, "epoch": 1, "loss": 0.30000000000000004, "layers": {"λ": {"rate": 1e-300}}}\n'
    )
    assert (folder.path / "metrics.jsonl").read_bytes() == line.encode()
    assert folder.metrics() == [record]
    with pytest.raises(ValueError, match="epoch and step"):
        folder.log_metrics({"step": 21, "loss": 1.0})


def test_what_is_not_finite_is_null_and_an_event(tmp_path: Path) -> None:
    folder = create(tmp_path)
    folder.log_metrics(
        {"epoch": 0, "step": 7, "loss": math.nan, "layers": {"a": {"rate": -math.inf}}, "best": 0.5}
    )
    [record] = folder.metrics()
    assert record == {
        "epoch": 0,
        "step": 7,
        "loss": None,
        "layers": {"a": {"rate": None}},
        "best": 0.5,
    }
    event = folder.events()[-1]
    assert (event["event"], event["epoch"], event["step"]) == ("non-finite", 0, 7)
    assert event["non_finite"] == {"loss": "nan", "layers.a.rate": "-inf"}
    folder.log_event("health", rate=math.inf)
    assert folder.events()[-1]["rate"] is None
    assert folder.events()[-1]["non_finite"] == {"rate": "inf"}


def test_a_half_written_line_is_left_out_by_readers(tmp_path: Path) -> None:
    folder = create(tmp_path)
    folder.log_metrics({"epoch": 1, "step": 10})
    with (folder.path / "metrics.jsonl").open("ab") as file:
        file.write('{"epoch": 2, "step": 20, "λ'.encode()[:-1])
    assert folder.metrics() == [{"epoch": 1, "step": 10}]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_a_line_with_a_number_that_is_not_finite_is_no_record(number: str) -> None:
    assert parse_line('{"data": {"train": [1e300]}}') == {"data": {"train": [1e300]}}
    assert parse_line(f'{{"data": {{"train": [{number}]}}}}') is None


def epoch(number: int, **fields: Any) -> dict[str, Any]:
    return {"epoch": number, "step": 10 * number, "loss": 1 / number, "train_s": 1.5} | fields


def test_rewind_cuts_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = create(tmp_path)
    assert folder.rewind(Counters(1, 10, 0)) == 0
    for number in (1, 2, 3):
        folder.log_metrics({"epoch": number - 1, "step": 10 * number - 5, "loss": 0.5})
        folder.log_metrics(epoch(number))
    # Stopped after the last batch of epoch 2 and before its evaluation: it is evaluated again.
    assert folder.rewind(Counters(epoch=1, step=20, batch=10)) == 3
    assert [(r["epoch"], r["step"]) for r in folder.metrics()] == [(0, 5), (1, 10), (1, 15)]
    # Stopped in the middle of epoch 2.
    assert folder.rewind(Counters(epoch=1, step=14, batch=4)) == 1
    assert [(r["epoch"], r["step"]) for r in folder.metrics()] == [(0, 5), (1, 10)]


def test_rewind_mends_what_a_crash_left(tmp_path: Path) -> None:
    folder = create(tmp_path)
    lines = [epoch(1), epoch(2), epoch(2, train_s=9.0)]  # The last: the same, run again.
    text = "\n".join(map(json.dumps, lines))
    rest = '\n\0\0\0\n[1]\n{"step": 3}\n{"epoch": 3, "st'
    (folder.path / "metrics.jsonl").write_text(text + rest)
    assert folder.rewind(Counters(3, 30, 0)) == 5
    assert folder.metrics() == [epoch(1), epoch(2)]


def test_lock_clears_what_a_killed_process_left(tmp_path: Path) -> None:
    folder = create(tmp_path)
    (folder.path / "ckpt" / f".tmp-{os.getpid()}-step-00000001").mkdir(parents=True)
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"time": "2026-')
    with folder.lock():
        assert not list((folder.path / "ckpt").iterdir())
        folder.log_event("resume", step=4)
        with pytest.raises(LockedError, match=f"process {os.getpid()} "), folder.lock():
            pass
    assert [event["event"] for event in folder.events()] == ["start", "resume"]


def state() -> dict[str, torch.Tensor]:
    return {
        "w": torch.tensor([[1.0, -0.0]]),
        "n": torch.tensor(3),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "mask": torch.tensor([True]),
        "empty": torch.empty(0),
        "zero": torch.zeros(2),
    }


def test_digest_sees_all_but_the_time() -> None:
    metrics = [epoch(1), epoch(2, eval_seconds=3.0)]
    digest = run.digest(state(), {"w/m": torch.ones(2)}, metrics)
    later = [epoch(1, train_s=0.1), epoch(2)]
    reordered = dict(reversed(state().items()))
    assert run.digest(reordered, {"w/m": torch.ones(2)}, later) == digest
    others = [
        run.digest(state() | {"w": torch.tensor([[1.0, 0.0]])}, {"w/m": torch.ones(2)}, metrics),
        run.digest(state() | {"w": torch.tensor([1.0, -0.0])}, {"w/m": torch.ones(2)}, metrics),
        run.digest(state() | {"n": torch.tensor(4)}, {"w/m": torch.ones(2)}, metrics),
        run.digest(
            state() | {"zero": torch.zeros(2, dtype=torch.int32)}, {"w/m": torch.ones(2)}, metrics
        ),
        run.digest(state(), {"w/v": torch.ones(2)}, metrics),
        run.digest(state(), {}, metrics),
        run.digest(state(), {"w/m": torch.ones(2)}, metrics[:1]),
        run.digest(state(), {"w/m": torch.ones(2)}, [epoch(1), epoch(2, loss=0.25)]),
    ]
    assert len({digest, *others}) == 1 + len(others)


def test_digest_does_not_care_how_a_tensor_lies_in_memory() -> None:
    square = torch.arange(6.0).reshape(2, 3)
    assert run.digest({"w": square}, {}, []) == run.digest({"w": square.T.contiguous().T}, {}, [])
    every_second = torch.arange(6.0)[::2]
    assert run.digest({"w": every_second}, {}, []) == run.digest(
        {"w": every_second.clone()}, {}, []
    )


def test_the_source_archive_is_the_same_bytes_each_time() -> None:
    archive = environment.source_zip()
    assert archive == environment.source_zip()
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        assert files.testzip() is None
        assert files.namelist() == sorted(files.namelist())


def test_the_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def no_space(operation: _disk.Operation) -> None:
        if operation.name == "append" and operation.path.name == "source.zip":
            raise OSError(28, "No space left on device")

    _disk.hooks.append(no_space)
    with pytest.raises(StoreError, match="bytes needed"):
        create(tmp_path)
    _disk.hooks.remove(no_space)
    assert not list(tmp_path.iterdir())
