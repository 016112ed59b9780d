"""The day with a GPU: it ends in time, loses nothing, and goes on where it ended."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tyro

import rmploss_bench
from rmploss import recipes
from rmploss.cli.train import Train
from rmploss.errors import StoreError, UserError
from rmploss_bench.command import Bench
from rmploss_bench.on_gpu import __main__ as on_gpu
from rmploss_bench.on_gpu import packing, tables, training
from rmploss_bench.on_gpu.clock import Clock, Ended, run
from rmploss_bench.on_gpu.packing import pack, pieces, unpack
from rmploss_bench.on_gpu.plan import GPU, Plan, Row, small
from rmploss_bench.on_gpu.record import Record
from rmploss_bench.on_gpu.training import START_S, Training

SCRIPT = Path(rmploss_bench.__file__).parents[1] / "on_gpu.sh"


def silent(line: str) -> None:
    """Says nothing."""


# The plan ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("plan", [GPU, small()], ids=["full", "small"])
def test_every_command_line_of_the_plan_is_one(plan: Plan) -> None:
    for table in plan.tables:
        asked = tyro.cli(Bench, args=table.words, config=(tyro.conf.FlagCreatePairsOff,))
        assert asked.topic == table.words[0]
    for row in plan.rows:
        words = (row.recipe, *row.words)
        asked = tyro.cli(Train, args=words, config=(tyro.conf.FlagCreatePairsOff,))
        assert asked.recipe in recipes.RECIPES


def test_no_two_parts_share_a_name() -> None:
    names = [part.name for part in (*GPU.tables, *GPU.rows)]
    assert len({*names}) == len(names)


def test_the_rows_stand_in_the_order_that_was_asked_for() -> None:
    short = [row.name.removeprefix("cifar10-") for row in GPU.rows]
    assert short[:6] == [
        "resnet20-fast45-s0",
        "resnet20-rmp-fast45-s0",
        "resnet20-fast45-all-s0",
        "resnet20-rmp-fast45-all-s0",
        "resnet20-fast-s0",
        "resnet20-rmp-fast-s0",
    ]
    assert [name[-2:] for name in short[8:12]] == ["s1", "s1", "s2", "s2"]
    assert [name.partition("-")[0] for name in short[12:]] == ["resnet19"] * 2 + ["vgg16"] * 2


def test_the_speed_is_measured_once_for_each_network() -> None:
    speeds = {row.speed for row in GPU.rows}
    assert speeds == {f"cifar10-resnet{n} --T {t}" for n, t in ((20, 4), (19, 2))} | {
        "cifar10-vgg16 --T 4"
    }


# Time --------------------------------------------------------------------------------------------


def test_a_process_may_end_by_itself_or_is_asked_to() -> None:
    ended = run([sys.executable, "-c", "print(1); print(2)"], seconds=60)
    assert (ended.code, ended.stopped, ended.output) == (0, False, "1\n2\n")
    polite = "import signal, time; signal.signal(15, lambda *_: exit(75)); print(1); time.sleep(60)"
    shown: list[str] = []
    ended = run([sys.executable, "-u", "-c", polite], seconds=3, show=shown.append)
    assert (ended.code, ended.stopped, shown) == (75, True, ["1"])


def test_a_process_that_does_not_listen_is_killed() -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    ended = run([sys.executable, "-c", deaf], seconds=2, kill_after=0.5)
    assert (ended.code, ended.stopped) == (-9, True)
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(("left", "status"), [(3600.0, "failed"), (10.0, "stopped")])
def test_a_part_that_hangs_leaves_time_for_the_others(
    left: float, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[float] = []

    def hanging(words: tuple[str, ...], *, seconds: float, **options: object) -> Ended:
        given.append(seconds)
        return Ended(-9, True, "", seconds + 0.1)

    monkeypatch.setattr(tables, "run", hanging)
    record, clock = Record.open(tmp_path), Clock(time.monotonic() + left)
    tables.tests(GPU, tmp_path, record, clock, silent)
    tables.table(GPU.tables[0], tmp_path, record, clock, silent)
    most = (5 * 60.0, 3.0 * GPU.tables[0].seconds)
    assert all(a <= min(b, left) for a, b in zip(given, most, strict=True))
    assert {part.status for part in record.parts.values()} == {status}


# Archives ----------------------------------------------------------------------------------------


def made_run(folder: Path) -> Path:
    path = folder / "a-s0-1234"
    (path / "ckpt" / "step-1").mkdir(parents=True)
    (path / "ckpt" / "step-1" / "state").write_bytes(os.urandom(5000))
    (path / "metrics.jsonl").write_text("{}\n")
    (path / ".lock").write_text("1")
    return path


def files(folder: Path) -> dict[str, bytes]:
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_a_run_is_restored_from_its_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "LIMIT", 2000)
    path, archive = made_run(tmp_path / "work"), tmp_path / "rows" / "a"
    new = pack(path, archive, checkpoints=True)
    assert len(new) == 3
    assert all(piece.stat().st_size <= 2000 for piece in new)
    back = unpack(archive, tmp_path / "again")
    assert back is not None
    assert back == tmp_path / "again" / path.name
    expected = files(path)
    del expected[".lock"]
    assert files(back) == expected
    new[1].unlink()
    assert unpack(archive, tmp_path / "third") is None


def test_a_finished_run_is_packed_without_checkpoints(tmp_path: Path) -> None:
    path, archive = made_run(tmp_path), tmp_path / "rows" / "a"
    pack(path, archive, checkpoints=True)
    (only,) = pack(path, archive, checkpoints=False)
    assert pieces(archive) == [only]
    back = unpack(archive, tmp_path / "again")
    assert back is not None
    assert [*files(back)] == ["metrics.jsonl"]


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"no zip")
    with pytest.raises(StoreError, match=r"a\.zip is damaged"):
        unpack(tmp_path / "a", tmp_path / "again")


def test_a_damaged_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text("[]")
    with pytest.raises(UserError, match="not the state of an earlier call"):
        Record.open(tmp_path)


# Rows --------------------------------------------------------------------------------------------

ROW = Row("row", "digits-rmp", ("--seed", "0", "--epochs", "4"), speed="digits")


class Engine:
    """In place of the process of `rmploss train`: so many epochs of 10 s are done in each call.

    epochs: done in each call, the first of which is the probe's.
    code: the exit code of a call that ends behind the last epoch.
    """

    def __init__(self, *epochs: int, code: int = 0) -> None:
        self.epochs, self.calls, self.code = [*epochs], list[tuple[str, ...]](), code

    def __call__(self, words: tuple[str, ...], **options: object) -> Ended:
        self.calls.append(words)
        if "--resume" in words:
            path = Path(words[words.index("--resume") + 1])
            assert (path / "ckpt" / "state").is_file()
        else:
            path = Path(words[words.index("--runs-dir") + 1]) / "run"
            (path / "ckpt").mkdir(parents=True)
            (path / "ckpt" / "state").write_text("")
            (path / "recipe.json").write_text("{}")
            (path / "metrics.jsonl").write_text("")
        done = len((path / "metrics.jsonl").read_text().splitlines())
        for epoch in range(done + 1, done + 1 + self.epochs.pop(0)):
            line = {"epoch": epoch, "train_s": 9.0, "test_s": 1.0, "test_accuracy": 50.0}
            with (path / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(line | {"quantization_error": 0.25}) + "\n")
        finished = len((path / "metrics.jsonl").read_text().splitlines()) == 4
        if finished:
            (path / "result.json").write_text("{}")
        return Ended(self.code if finished else 75, not finished, "", 20.0)


def rows_of(out: Path, monkeypatch: pytest.MonkeyPatch, engine: Engine, left: float) -> list[str]:
    """What a call with so many seconds says."""
    monkeypatch.setattr(training, "run", engine)
    said: list[str] = []
    probe = ("--epochs", "2", "--train-samples", "25000", "--test-samples", "5000")
    record, clock = Record.open(out), Clock(time.monotonic() + left)
    Training(Plan("cpu", (), (), (ROW,), probe), out, record, clock, said.append).row(ROW)
    return said


def test_a_row_that_does_not_fit_is_resumed_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(2, 3, 1)
    said = rows_of(tmp_path, monkeypatch, engine, left=90 + 30.5)
    resumed = ", which is not enough: it will be resumed"
    # The probe's epoch takes 10 s for half of the images: 20 s; later the row's own 10 s count.
    assert said[:2] == [
        "row: 20.00 s an epoch, measured",
        f"row: about {START_S + 110:.0f} s (30 s of them to save it), 120 s are left{resumed}",
    ]
    record = Record.open(tmp_path)
    assert record.parts["row"].status == "stopped"
    (archive,) = pieces(tmp_path / "rows" / "row")
    said = rows_of(tmp_path, monkeypatch, engine, left=90 + 30.5)
    assert said[0] == f"row: about {START_S + 40:.0f} s (30 s of them to save it), 120 s are left"
    assert "--resume" in engine.calls[-1]
    part = Record.open(tmp_path).parts["row"]
    assert (part.status, part.seconds) == ("done", 40.0)
    assert part.note == "epoch 4, 50.00 %, quantization error 0.2500"
    assert archive.exists()


def test_a_row_that_dies_after_its_result_is_not_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows_of(tmp_path, monkeypatch, Engine(2, 4, code=1), left=200)
    part = Record.open(tmp_path).parts["row"]
    assert (part.status, part.note[:11]) == ("failed", "exit code 1")
    assert any("ckpt" in name for name in files(unpacked(tmp_path)))


def unpacked(out: Path) -> Path:
    """The run folder of the row, from its archive."""
    path = unpack(out / "rows" / "row", out / "again")
    assert path is not None
    return path


def test_a_row_is_not_begun_with_too_little_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(2)
    said = rows_of(tmp_path, monkeypatch, engine, left=60)
    assert said[-1].endswith("which is not enough: too little to begin it")
    assert len(engine.calls) == 1  # the probe
    assert Record.open(tmp_path).parts["row"].note == "not begun: too little time was left"


def test_a_measurement_without_time_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(words: tuple[str, ...], **options: object) -> Ended:
        return Ended(-15, True, "", 0.0)

    monkeypatch.setattr(training, "run", stopped)
    said: list[str] = []
    record, clock = Record.open(tmp_path), Clock(time.monotonic() + 20)
    plan = Plan("cpu", (), (), (ROW,), ("--epochs", "2"))
    Training(plan, tmp_path, record, clock, said.append).row(ROW)
    assert said[0] == "row: no time was left to measure a step"


def test_without_pytest_the_day_does_not_begin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install '\.\[test\]', or WHEELS"):
        on_gpu.OnGpu(60.0, Path("out")).run()


def test_on_another_machine_the_archive_is_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine(2, 2, 2)
    rows_of(tmp_path, monkeypatch, engine, left=120)
    (tmp_path / "work").rename(tmp_path / "lost")
    rows_of(tmp_path, monkeypatch, engine, left=120)
    assert engine.calls[-1][-3] == str(tmp_path / "work" / "row" / "run")
    assert Record.open(tmp_path).parts["row"].status == "done"


def test_a_row_is_really_trained(tmp_path: Path) -> None:
    row = Row("d", "digits-rmp", ("--epochs", "1", "--train-samples", "70"), speed="d")
    record, clock = Record.open(tmp_path), Clock(time.monotonic() + 300)
    Training(Plan("cpu", (), (), (row,), ()), tmp_path, record, clock, silent).row(row)
    assert record.parts["d"].status == "done", record.parts["d"]
    (archive,) = pieces(tmp_path / "rows" / "d")
    assert archive.stat().st_size < 2**24


def test_the_script_starts() -> None:
    environment = {**os.environ, "PYTHON": sys.executable}
    words = ["bash", str(SCRIPT), "--help"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert "SECONDS OUT" in done.stdout
