"""kill -9 before and after every phase of training: the resumed run is the unbroken one."""

import signal
from pathlib import Path

import pytest
import torch

from rmploss import store
from rmploss.engine import after_training, checkpoint, evaluate, step, train
from rmploss.engine.run import RunFolder
from rmploss.errors import CheckpointError
from tests.engine.children import check_sound, die, finish, start
from tests.engine.runs import TINY, digest_of

PHASES = {
    "forward and backward": (step, "forward_backward"),
    "update": (torch.optim.SGD, "step"),
    "evaluation": (evaluate.Evaluator, "__call__"),
    "log": (RunFolder, "log_metrics"),
    "save": (checkpoint, "save"),
    "histograms": (after_training, "membrane_histograms"),
    "result": (store, "write_text"),
}


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without interruption."""
    return train.train(TINY, tmp_path_factory.mktemp("unbroken"))


def train_and_die(runs: Path, phase: str, when: str, call: int) -> None:
    owner, name = PHASES[phase]
    die(owner, name, when, call)
    train.train(TINY, runs)


@pytest.mark.parametrize(
    ("phase", "when", "call"),
    [
        ("forward and backward", "before", 1),
        ("forward and backward", "after", 6),
        ("update", "before", 5),
        ("update", "after", 8),
        ("evaluation", "before", 1),
        ("evaluation", "after", 2),
        ("log", "before", 2),
        ("log", "after", 1),
        ("save", "after", 1),
        ("save", "before", 2),
        ("save", "after", 3),
        ("histograms", "before", 1),
        ("result", "before", 2),
        ("result", "after", 1),
    ],
)
def test_after_a_crash_the_run_is_resumed_bit_for_bit(
    phase: str, when: str, call: int, unbroken: Path, tmp_path: Path
) -> None:
    assert finish(start(train_and_die, tmp_path, phase, when, call)) == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    assert not (path / "membrane.json").exists()
    assert train.resume(path) == path
    assert digest_of(path) == digest_of(unbroken)
    check_sound(path)


def test_a_crash_before_the_first_checkpoint_is_reported(tmp_path: Path) -> None:
    assert finish(start(train_and_die, tmp_path, "save", "before", 1)) == -signal.SIGKILL
    (path,) = tmp_path.iterdir()
    with pytest.raises(CheckpointError, match="before it saved one"):
        train.resume(path)
