"""Data sets of somebody else that fail: where it was, the traceback, and a run that goes on."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from rmploss import cli
from rmploss.data import Key, Splits
from rmploss.data.digits import Digits
from rmploss.engine.checkpoint import Counters
from rmploss.engine.execution import Execution
from rmploss.engine.failure import failed_in_test, failed_in_training
from rmploss.engine.run import RunFolder
from rmploss.engine.train import resume, train
from rmploss.errors import DataError, LoaderError, MemoryLimitError
from tests.engine.children import check_sound
from tests.engine.runs import TINY, digest_of
from tests.engine.test_go_on import Dying


class Faulty:
    """The samples of another split, of which all raise in epoch 2, or one in every test."""

    def __init__(self, samples: Any, fails: bool | int) -> None:
        self.samples, self.labels, self.fails = samples, samples.labels, fails

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> Any:
        if key.epoch == 1 if self.fails is True else key.index == self.fails is not False:
            return innermost(key.index)
        return self.samples[key]


def innermost(index: int) -> None:
    raise KeyError(f"no pixel {index}")


@dataclass
class Setting:
    """Whether the data set fails.

    tested: the number of the test sample that does.
    """

    fails: bool = True
    tested: int | Literal[False] = False


@pytest.fixture
def setting(monkeypatch: pytest.MonkeyPatch) -> Setting:
    """Replaces the splits of the digits."""
    usual, setting = Digits.open, Setting()

    def faulty(self: Any, *arguments: Any, **options: Any) -> Splits:
        splits = usual(self, *arguments, **options)
        return Splits(Faulty(splits.train, setting.fails), Faulty(splits.test, setting.tested))

    monkeypatch.setattr(Digits, "open", faulty)
    return setting


@pytest.mark.parametrize("workers", [0, 1])
def test_the_traceback_of_a_data_set_is_kept_and_the_run_goes_on(
    workers: int, setting: Setting, tmp_path: Path
) -> None:
    execution = Execution(workers=workers)
    with pytest.raises(LoaderError, match="KeyError: 'no pixel") as caught:
        train(TINY, tmp_path, execution)
    (path,) = tmp_path.iterdir()
    event = RunFolder.open(path).events()[-1]
    assert event["event"] == "failed"
    assert event["epoch"] == 2
    for trace in (event["trace"], *caught.value.__notes__):
        assert f'{__file__}", line' in trace
        assert "in innermost" in trace
    setting.fails = False
    assert train(TINY, tmp_path, execution, or_resume=True) == path
    assert digest_of(path) == digest_of(train(TINY, tmp_path / "unbroken", execution))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_failure_in_a_test_names_its_batch(
    workers: int, setting: Setting, tmp_path: Path
) -> None:
    setting.fails, setting.tested = False, 100
    recipe = TINY.but(test_samples=None)
    with pytest.raises(LoaderError, match="sample 100"):
        train(recipe, tmp_path, Execution(workers=workers))
    (path,) = tmp_path.iterdir()
    event = RunFolder.open(path).events()[-1]
    before = 100 // recipe.batch_size
    assert (event["event"], event["phase"], event["epoch"]) == ("failed", "test", 1)
    assert event["batch"] == before + 1
    assert event["samples"] == [before * recipe.batch_size + i for i in range(recipe.batch_size)]


def test_a_failure_says_where_it_was() -> None:
    size, at = TINY.batch_size, Counters(epoch=2, step=7, batch=1)
    trained = failed_in_training(TINY, at, 4 * size)
    assert f"in training {TINY.name}: epoch 3, batch 2, step 7, of the samples" in trained.words()
    tested = failed_in_test(TINY, at, size + 1, 1)
    place = f"in the test of {TINY.name}: epoch 3"
    assert tested.words() == f"{place}, batch 2, step 7, of the samples {size}"
    behind = failed_in_test(TINY, at, size + 1, 2)
    assert behind.words() == f"{place}, step 7"
    assert behind.fields() == {"phase": "test", "step": 7, "epoch": 3}


@pytest.mark.usefixtures("setting")
def test_the_command_line_prints_the_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cli, "_run", lambda words: train(TINY, tmp_path))
    assert cli.main(["train"]) == LoaderError.exit_code
    shown = capsys.readouterr().err
    assert "in innermost" in shown
    assert "a bug of rmploss" not in shown


def test_labels_out_of_range_are_told_before_a_run_folder_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = Digits.open

    def shifted(self: Any, *arguments: Any, **options: Any) -> Splits:
        splits = usual(self, *arguments, **options)
        test: Any = Faulty(splits.test, False)
        test.labels = splits.test.labels + 1
        return Splits(splits.train, test)

    monkeypatch.setattr(Digits, "open", shifted)
    with pytest.raises(DataError, match=r"labels of test of digits(?s:.*)has label 10"):
        train(TINY, tmp_path)
    assert not list(tmp_path.iterdir())


LIMITED = """
import resource, sys
from rmploss import cli
from tests.engine.test_go_on import Dying
from tests.engine.runs import TINY
import rmploss.engine.train
# Now: an import that runs out of memory may end in a SystemError of the interpreter.
import rmploss.cli.doctor, rmploss.cli.train, rmploss.data.digits, rmploss.selftest
pages = int(open("/proc/self/statm").read().split()[0])
size = pages * resource.getpagesize() + int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_AS, (size, size))
sys.exit(cli.main(sys.argv[2:]))
"""
ROOM = 2**22
"""Bytes that a process may still take, too few for a step."""


def limited(*words: str) -> str:
    """What a verb says on standard error that has `ROOM` beyond its libraries."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(ROOM), *words],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == MemoryLimitError.exit_code, done.stderr
    assert "out of memory" in done.stderr
    assert "GB so far" in done.stderr
    assert "lower batch_size" in done.stderr or "ulimit -v" in done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_limit_of_memory_is_told_and_costs_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path, listener=Dying(epoch=2, done=1))
    (path,) = tmp_path.iterdir()
    limited("train", "--resume", str(path))
    limited("doctor")
    resume(path)
    check_sound(path)
