"""Small runs for the tests: a recipe of a second, listeners that interrupt, the digest of a run."""

import os
import signal
from pathlib import Path

from rmploss import recipes
from rmploss.engine import checkpoint
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder, digest, timeless

TINY = recipes.override(
    recipes.get("digits-rmp"),
    {
        "epochs": 2,
        "train_samples": 128,
        "test_samples": 64,
        "batch_size": 32,
        "network.width": 0.125,
        "T": 2,
    },
)
"""Two epochs of four steps, two batches of tests."""


class Interrupting(Listener):
    """Sends this process a signal after one batch of one phase of one epoch."""

    def __init__(self, phase: str, epoch: int, done: int, number: signal.Signals) -> None:
        self.at, self.number = (phase, epoch, done), number

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        if (phase, epoch, done) == self.at:
            os.kill(os.getpid(), self.number)


def digest_of(path: Path) -> str:
    """The run digest of a finished run."""
    folder = RunFolder.open(path)
    loaded = checkpoint.load_latest(path, recipe_hash=folder.recipe_hash)
    return digest(loaded.model_state, loaded.optimizer_state.tensors, folder.metrics())


def untimed_metrics(path: Path) -> list[dict[str, object]]:
    """The lines of metrics.jsonl without their times."""
    return [timeless(record) for record in RunFolder.open(path).metrics()]
