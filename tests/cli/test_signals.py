"""Signals to `python -m rmploss train`, from outside: exit code 75, a checkpoint, how to resume."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rmploss.engine import checkpoint
from rmploss.engine.checkpoint import Loaded
from rmploss.engine.run import RunFolder

WORDS = (
    "train digits-rmp --T 2 --width 0.125 --batch-size 32 --train-samples 128 --test-samples 64 "
    "--epochs 1000000 --device cpu --json"
)
"""A run that no test waits for."""


@contextmanager
def training(words: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """A process, leader of its group, that has begun to train."""
    process = subprocess.Popen(
        [sys.executable, "-m", "rmploss", *words.split()],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert process.stdout
    try:
        assert '"begin"' in process.stdout.readline()
        yield process
    finally:
        process.kill()
        process.communicate()


def newest(run: Path) -> Loaded:
    return checkpoint.load_latest(run, recipe_hash=RunFolder.open(run).recipe_hash)


def test_a_signal_stops_and_the_message_says_how_to_go_on(tmp_path: Path) -> None:
    with training(WORDS, tmp_path) as process:
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75
    (run,) = (tmp_path / "runs").iterdir()
    at = newest(run).counters
    first = at.step
    position = f"epoch {at.epoch}"
    if at.batch or not at.epoch:
        position = f"epoch {at.epoch + 1}, batch {at.batch} of 4"
    assert err.splitlines() == [
        f"stopped after step {first} ({position}), checkpoint written; resume with",
        f"  rmploss train --resume {run.relative_to(tmp_path)} --device cpu",
    ]
    assert RunFolder.open(run).events()[-1]["event"] == "interrupted"
    resume = err.splitlines()[1].removeprefix("  rmploss ")
    with training(f"{resume} --json", tmp_path) as process:
        process.send_signal(signal.SIGINT)  # Ctrl-C
        _, err = process.communicate(timeout=120)
    assert process.returncode == 75
    assert "Traceback" not in err
    assert newest(run).counters.step > first


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_group_spares_the_loaders(
    number: signal.Signals, tmp_path: Path
) -> None:
    """As Ctrl-C sends it, and a scheduler: the loaders live until the step is saved."""
    with training(f"{WORDS} --workers 1", tmp_path) as process:
        assert process.stdout
        process.stdout.readline()  # an epoch is done: loaders have come and gone
        os.killpg(process.pid, number)
        out, err = process.communicate(timeout=120)
    assert (process.returncode, "Traceback" in out + err) == (75, False), err
    (run,) = (tmp_path / "runs").iterdir()
    assert newest(run).counters.step > 0


def test_ctrl_c_anywhere_else_just_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from rmploss.cli import main

    monkeypatch.setattr("rmploss.cli.list._print_main_recipes", _raise(KeyboardInterrupt))
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "\nstopped\n"


def _raise(error: type[BaseException]) -> Callable[[], None]:
    def function() -> None:
        raise error

    return function
