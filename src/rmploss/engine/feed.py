"""What a run feeds on: its samples, and the batches of one rank."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor

from rmploss.data import DataSet, Samples, batches, data_root, take
from rmploss.engine.distributed import World
from rmploss.engine.listener import Listener
from rmploss.recipes import Recipe


def open_splits(
    recipe: Recipe, dataset: DataSet, data_dir: Path | None, listener: Listener
) -> tuple[Samples, Samples]:
    """The recipe's training and test samples."""

    def progress(done: int, total: int) -> None:
        listener.loading(dataset.name, done, total)

    root = data_root(data_dir)
    splits = dataset.open(root, seed=recipe.seed, T=recipe.T, progress=progress)
    return take(splits.train, recipe.train_samples), take(splits.test, recipe.test_samples)


def train_batches(
    recipe: Recipe, samples: Samples, world: World, workers: int, *, epoch: int, start: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """A rank's share of the batches of one epoch, without the first `start`."""
    with _deaf_children():
        return batches(
            samples,
            batch_size=recipe.batch_size,
            epoch=epoch,
            seed=recipe.seed,
            shuffle=True,
            drop_last=True,
            rank=world.rank,
            world=world.size,
            workers=workers,
            start=start,
        )


def test_batches(
    recipe: Recipe, samples: Samples, world: World, workers: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """All test samples once, in order; a rank gets its share."""
    with _deaf_children():
        return batches(
            samples,
            batch_size=recipe.batch_size,
            epoch=0,
            seed=recipe.seed,
            shuffle=False,
            drop_last=False,
            rank=world.rank,
            world=world.size,
            workers=workers,
        )


def parts(images: Tensor, labels: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A batch in equal parts along B, which comes before the last three dimensions."""
    along = images.ndim - 4
    yield from zip(images.chunk(count, along), labels.chunk(count), strict=True)


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that start in the block never hear the signals that ask a run to stop.

    Ctrl-C and schedulers signal the whole group of processes. A loader that dies of it would take
    the run with it, in the middle of a step; this way it works until the run has stopped.
    """
    names = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    heard = signal.pthread_sigmask(signal.SIG_BLOCK, [getattr(signal, name) for name in names])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, heard)
