"""Open a recipe's splits and iterate one rank's batches."""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import torch
from torch import Tensor

from rmploss.data import (
    DataSet,
    InMemory,
    Samples,
    batches,
    data_root,
    hold_out,
    n_batches,
    take,
)
from rmploss.data._checks import require_labels
from rmploss.data._loading import TIMEOUT_S
from rmploss.engine.distributed import World
from rmploss.engine.listener import Listener
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe

MOST_WORKERS = 16
"""The largest number of loader processes of a rank that is chosen from the machine."""
ALONE = World()
"""One process on the CPU."""


def open_splits(
    recipe: Recipe,
    dataset: DataSet,
    data_dir: Path | None,
    listener: Listener,
    device: torch.device | None = None,
) -> tuple[Samples, Samples]:
    """Open the training and test samples of a recipe; with `validation` the latter are held out.

    dataset: the recipe's data set.
    data_dir: the folder of the data sets; None: the default (`data.data_root`).
    listener: is notified while data are prepared.
    device: where samples in memory are held and their batches made, if they fit
        (`data.InMemory.to`); None: the CPU.
    """

    def report(done: int, total: int) -> None:
        listener.loading(dataset.name, done, total)

    root, kept = data_root(data_dir), _kept.get()
    key = _key(recipe, root)
    if kept is not None and key in kept:
        train, test = kept[key]
        return _placed(train, device), _placed(test, device)
    splits = dataset.open(root, seed=recipe.seed, T=recipe.T, progress=report)
    for name, split in (("train", splits.train), ("test", splits.test)):
        require_labels(split, f"{name} of {dataset.name}", dataset.num_classes)
    train, test = take(splits.train, recipe.train_samples), take(splits.test, recipe.test_samples)
    if recipe.validation is not None:
        train, test = hold_out(train, test, recipe.validation)
    if kept is not None and isinstance(train, InMemory) and isinstance(test, InMemory):
        kept[key] = train, test
    return _placed(train, device), _placed(test, device)


def _key(recipe: Recipe, root: Path) -> tuple[object, ...]:
    """All that decides the samples of a recipe.

    Not the `repr` of the data set: one from outside may show its options as it likes, or not at
    all. It may draw its splits from the seed as well.
    """
    options = repr(sorted(recipe.data.options.items()))
    used = (recipe.train_samples, recipe.test_samples, recipe.validation)
    return recipe.data.name, options, root, recipe.seed, recipe.T, *used


_kept: ContextVar[dict[Any, tuple[InMemory, InMemory]] | None] = ContextVar("_kept", default=None)


@contextmanager
def splits_kept() -> Iterator[None]:
    """Inside the block, read samples in memory once for all recipes with them and one seed."""
    token = _kept.set({})
    try:
        yield
    finally:
        _kept.reset(token)


def _placed(samples: Samples, device: torch.device | None) -> Samples:
    """The samples on a device, if they are held in memory."""
    if device is None or not isinstance(samples, InMemory):
        return samples
    return samples.to(device)


def loader_processes(workers: int | None, world: World) -> int:
    """The number of loader processes of one rank.

    workers: the number asked for; None: beside a GPU, one less than the rank's share of the
        cores, at most `MOST_WORKERS`. On a CPU none: they would take the network's cores. None
        outside of Linux.
    """
    if workers is not None:
        return workers
    if world.device.type != "cuda" or sys.platform != "linux":
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return max(0, min((cores or 1) // ranks - 1, MOST_WORKERS))


def made_by_step(samples: Samples, world: World) -> TypeGuard[InMemory]:
    """True for samples on the device of the training: a step makes its batch itself."""
    return isinstance(samples, InMemory) and samples.stored.device == world.device


def full_batches(samples: Samples, batch_size: int) -> int:
    """The number of full batches of the training samples; `UserError` if there is none."""
    count = n_batches(samples, batch_size, drop_last=True)
    if not count:
        most = len(samples)
        what = f"only {most} training samples, so no batch is full"
        problem = Problem(f"batch_size = {batch_size}", what, f"at most {most}")
        raise UserError("no batch to train on", [problem])
    return count


@dataclass(frozen=True)
class RankBatches:
    """One rank's share of the batches of a recipe.

    recipe: with the size of a batch, and the seed that decides the order.
    world: this process among the ranks.
    workers: the number of loader processes, see `loader_processes`; samples in memory need none.
    timeout_s, on_loss: see `data.batches`.
    """

    recipe: Recipe
    world: World = ALONE
    workers: int | None = 0
    timeout_s: float = TIMEOUT_S
    on_loss: Callable[[str], None] = lambda what: None

    def train(
        self, samples: Samples, *, epoch: int, skip: int = 0, as_indices: bool = False
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of one epoch: (images, labels `[B]`).

        samples: the training samples.
        epoch: completed epochs; with the recipe's seed it decides the order.
        skip: the number of first batches to leave out, those done before an interruption.
        as_indices: yield (indices `[B]`, epoch `[]`) instead, of which `samples.batch` makes the
            batch; only where `made_by_step`.
        """
        return self._batches(
            samples,
            epoch=epoch,
            shuffle=True,
            drop_last=True,
            start=skip,
            as_indices=as_indices,
        )

    def test(self, samples: Samples) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of the test samples, in order, each sample once: (images, labels `[B]`)."""
        return self._batches(samples, epoch=0, shuffle=False, drop_last=False)

    def _batches(self, samples: Samples, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        return batches(
            samples,
            batch_size=self.recipe.batch_size,
            seed=self.recipe.seed,
            rank=self.world.rank,
            world=self.world.size,
            workers=loader_processes(self.workers, self.world),
            pin=self.world.device.type == "cuda",
            timeout_s=self.timeout_s,
            on_loss=self.on_loss,
            **options,
        )


def micro_batches(images: Tensor, labels: Tensor, count: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Split a batch along B into `count` equal parts, for gradient accumulation.

    images: `[B, C, H, W]` or `[T, B, C, H, W]`.
    labels: `[B]`.
    """
    along = images.ndim - 4
    yield from zip(images.chunk(count, along), labels.chunk(count), strict=True)
