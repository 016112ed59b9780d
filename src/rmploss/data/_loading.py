"""Iterate batches: balanced subsets, the order of an epoch, and the share of each rank.

The order is a permutation drawn for (seed, epoch) alone, cut into global batches; rank r of `world`
takes the r-th contiguous share of every batch. All ranks together therefore process
exactly the batches that a single rank would.
"""

import math
import sys
import traceback
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from rmploss.data._base import Key, Samples
from rmploss.data._checks import require_equal_shapes, require_sample
from rmploss.data._in_memory import InMemory
from rmploss.data._loader_process import NO_FILES, too_many_files
from rmploss.data._loaders import Loaders
from rmploss.errors import LoaderError, Problem, UserError
from rmploss.randomness import derive, generator

Batch = tuple[Tensor, Tensor]
TIMEOUT_S = 60.0
"""The default of the seconds that a loader process may take for a sample."""


@dataclass(frozen=True, eq=False)
class Subset:
    """Some samples of a split; sample i gets the augmentation of sample `indices[i]`."""

    samples: Samples
    indices: Tensor

    @property
    def labels(self) -> Tensor:
        """All labels, int64 `[N]`."""
        return self.samples.labels[self.indices]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        return self.samples[Key(key.epoch, int(self.indices[key.index]))]


def balanced(labels: Tensor, n: int, purpose: str) -> Tensor:
    """Indices of n samples, as equal in number per class as the classes allow, ascending, int64.

    Each class is sorted by a hash, and samples are taken from the classes in turn: the smaller of
    two subsets lies inside the larger, and no library's generator can change a published split.
    """
    turns: dict[int, int] = defaultdict(int)
    places: list[tuple[int, int, int]] = []
    for hashed, index, label in sorted(
        (derive(0, purpose, index), index, label) for index, label in enumerate(labels.tolist())
    ):
        places.append((turns[label], hashed, index))
        turns[label] += 1
    return torch.tensor(sorted(index for _, _, index in sorted(places)[:n]), dtype=torch.int64)


def proportional(labels: Tensor, share: float, purpose: str) -> Tensor:
    """Indices of a share of the samples, ascending, int64: of every class about its share.

    Of a class of n samples share n, rounded down or up so that all are round(share N) together (the
    largest remainders up), but never all n. The samples are those of `balanced`, by a hash.
    """
    counts = torch.bincount(labels).tolist()
    quotas = [min(share * n, max(n - 1, 0)) for n in counts]
    sizes = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(counts)), key=lambda k: (sizes[k] - quotas[k], k))
    for label in by_remainder[: max(0, round(share * len(labels)) - sum(sizes))]:
        sizes[label] += quotas[label] > sizes[label]
    held: list[int] = []
    for label, size in enumerate(sizes):
        members = (labels == label).nonzero().flatten().tolist()
        held += sorted(members, key=lambda index: (derive(0, purpose, index), index))[:size]
    return torch.tensor(sorted(held), dtype=torch.int64)


def take(samples: Samples, n: int | None) -> Samples:
    """A class-balanced subset of n samples, the same for every seed; None: all of them.

    Raises `UserError` if n is not in 1..N.
    """
    if n is None:
        return samples
    if not 1 <= n <= len(samples):
        problem = Problem(f"{n} samples", f"the split has {len(samples)}", f"1 to {len(samples)}")
        raise UserError("cannot take a subset", [problem])
    indices = balanced(samples.labels, n, "subset")
    return samples.select(indices) if isinstance(samples, InMemory) else Subset(samples, indices)


def hold_out(train: Samples, test: Samples, share: float) -> tuple[Samples, Samples]:
    """Training samples without a share of every class, and that share as a test split.

    train, test: the splits, held in memory; of `test` only the preparation is taken.
    share: in (0, 1), of the training samples. Which they are is a function of their order alone.
        Every class keeps a training sample.

    Raises `UserError` if the data are not held in memory, or a part would be empty.
    """
    if not isinstance(train, InMemory) or not isinstance(test, InMemory):
        what = "needs data in memory: only they can be prepared as tests are"
        raise UserError("no validation split", [Problem(f"validation = {share}", what, "none")])
    n = round(share * len(train))
    if not 0 < n < len(train):
        what = f"holds out {n} of {len(train)} training samples"
        raise UserError("no validation split", [Problem(f"validation = {share}", what, "0.5")])
    held = proportional(train.labels, share, "validation")
    if not len(held):
        what = "holds out no sample: every class has only one"
        raise UserError("no validation split", [Problem(f"validation = {share}", what, "none")])
    kept = torch.ones(len(train), dtype=torch.bool)
    kept[held] = False
    return train.select(kept.nonzero().flatten()), replace(train.select(held), prepare=test.prepare)


def n_batches(samples: Samples, batch_size: int, drop_last: bool) -> int:
    """The number of batches of one epoch."""
    return len(samples) // batch_size if drop_last else -(-len(samples) // batch_size)


def batches(
    samples: Samples,
    *,
    batch_size: int,
    epoch: int,
    seed: int,
    shuffle: bool,
    drop_last: bool,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
    start: int = 0,
    pin: bool = False,
    as_indices: bool = False,
    timeout_s: float = TIMEOUT_S,
    on_loss: Callable[[str], None] = lambda what: None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One rank's share of the batches of one epoch, as (x, labels).

    x is `[B, C, H, W]` for images, `[T, B, C, H, W]` (time first) for events; labels are int64
    `[B]`. The last batch, if incomplete, is divided as evenly as possible: B may then differ
    between ranks, and be 0. The process's own generators are neither read nor advanced.

    batch_size: of the global batch: B is batch_size / world.
    epoch, seed: decide the order and the augmentation.
    shuffle: a random order; False: the order of the split.
    drop_last: leave out an incomplete last batch.
    rank, world: this process, and the number of processes.
    workers: processes that load (Linux only); 0: this one. Samples in memory need none: their
        batches are made by this process, on the device that holds them, unless `pin`.
    start: the number of batches to skip (resume); none of their samples is loaded.
    pin: put batches of loader processes into page-locked memory, for copies to a GPU; samples in
        the memory of the host are loaded by processes, too.
    as_indices: of samples in memory yield not (x, labels) but (indices `[B]`, epoch `[]`), of which
        `InMemory.batch` makes them: a captured step does so itself.
    timeout_s: a loader process that takes longer for a sample, in seconds, is lost. A lost process
        is replaced by one that loads the same samples.
    on_loss: called with a sentence for every process that was replaced.

    Raises `UserError` if `world` does not divide `batch_size`, or if `drop_last` leaves no batch;
    while iterating, `LoaderError` if a sample cannot be loaded, or processes are lost twice at it.
    """
    _check(len(samples), batch_size, drop_last, world)
    n = len(samples)
    order = _order(n, seed, epoch) if shuffle else list(range(n))
    shares = _shares(order, batch_size, drop_last, rank, world)
    if isinstance(samples, InMemory) and not _copied(samples, workers, pin):
        places = _in_memory(samples, epoch, shares[start:])
        return places if as_indices else (samples.batch(*place) for place in places)
    share = _Share(samples, epoch, shares[start:], start)
    if workers == 0:
        return map(share.load, range(len(share)))
    if sys.platform != "linux":
        problem = Problem(f"workers = {workers}", "needs Linux", "--workers 0")
        raise UserError("no loader processes here", [problem])
    seed = derive(seed, "workers", epoch)
    return Loaders(share, workers, seed=seed, timeout_s=timeout_s, pin=pin, on_loss=on_loss)


def _copied(samples: InMemory, workers: int, pin: bool) -> bool:
    """True if batches of the host's memory are made ahead, for copies to a GPU."""
    return pin and workers > 0 and samples.stored.device.type == "cpu"


def batch_indices(n: int, *, batch_size: int, epoch: int, seed: int, batch: int) -> list[int]:
    """The samples of one batch of an epoch that is shuffled, of all ranks.

    n: the number of samples.
    batch_size, epoch, seed: see `batches`.
    batch: its number, from 0.
    """
    return _order(n, seed, epoch)[batch * batch_size : (batch + 1) * batch_size]


def _order(n: int, seed: int, epoch: int) -> list[int]:
    return torch.randperm(n, generator=generator(seed, "order", epoch)).tolist()


def _in_memory(
    samples: InMemory, epoch: int, shares: list[list[int]]
) -> Iterator[tuple[Tensor, Tensor]]:
    """(indices, epoch) of one rank's batches; they travel to the device once, not one by one."""
    device = samples.stored.device
    at = torch.tensor(epoch, device=device)
    indices = torch.tensor([index for share in shares for index in share], dtype=torch.int64)
    parts = indices.to(device).split([len(share) for share in shares])
    return ((part, at) for part in parts)


def _shares(
    order: list[int], batch_size: int, drop_last: bool, rank: int, world: int
) -> list[list[int]]:
    """The indices of one rank, batch by batch."""
    stop = len(order) - len(order) % batch_size if drop_last else len(order)
    shares = []
    for first in range(0, stop, batch_size):
        batch = order[first : min(first + batch_size, stop)]
        lower, upper = len(batch) * rank // world, len(batch) * (rank + 1) // world
        shares.append(batch[lower:upper])
    return shares


def _check(n: int, batch_size: int, drop_last: bool, world: int) -> None:
    if batch_size % world:
        below = max(batch_size - batch_size % world, world)
        where = f"batch_size = {batch_size} on {world} ranks"
        what = f"{batch_size} is not divisible by {world}"
        fixes = sorted({below, batch_size - batch_size % world + world})
        fix = "try " + " or ".join(f"batch_size={size}" for size in fixes)
        raise UserError("cannot share out the batches", [Problem(where, what, fix)])
    if drop_last and n < batch_size:
        where, what = f"batch_size = {batch_size}", f"only {n} samples, so no batch is full"
        raise UserError("no batch to train on", [Problem(where, what, f"at most {n}")])


@dataclass(frozen=True, eq=False)
class _Share:
    """The batches of one rank in one epoch, numbered from 0.

    first: the number of batches of the epoch before these.
    """

    batched: Samples
    epoch: int
    indices: list[list[int]]
    first: int

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, batch: int) -> str:
        """Which batch it is; users count from 1."""
        return f"epoch {self.epoch + 1}, batch {self.first + batch + 1}"

    def samples(self, batch: int) -> list[int]:
        """The numbers of its samples in the whole split."""
        return [self._number(index) for index in self.indices[batch]]

    def load(self, batch: int, at: Callable[[int], None] = lambda sample: None) -> Batch:
        """A batch: samples stacked along a new dimension in front of `[C, H, W]`, after time."""
        indices = self.indices[batch]
        if isinstance(self.batched, InMemory):
            return self.batched.batch(torch.tensor(indices), torch.tensor(self.epoch))
        # An empty share loads one sample for its shape.
        numbers = indices or [0]
        loaded = [self._sample(i, batch, at) for i in numbers]
        inputs, labels = zip(*loaded, strict=True)
        require_equal_shapes(inputs, [f"sample {self._number(i)}" for i in numbers])
        dim = inputs[0].ndim - 3
        x = torch.stack(inputs, dim).narrow(dim, 0, len(indices))
        return x, torch.tensor(labels)[: len(indices)]

    def _sample(self, index: int, batch: int, at: Callable[[int], None]) -> tuple[Tensor, int]:
        """A sample; an error of a data set's own code becomes one that names it."""
        number = self._number(index)
        at(number)
        where = f"sample {number} ({self.name(batch)})"
        try:
            sample = self.batched[Key(self.epoch, index)]
        except (UserError, MemoryError):
            raise
        except Exception as error:
            if isinstance(error, OSError) and error.errno in NO_FILES:
                raise too_many_files(f"cannot load sample {number}") from error
            line = traceback.extract_tb(error.__traceback__)[-1]
            what = f"{type(error).__name__}: {error}"
            raised = f"raised in {line.filename}, line {line.lineno}"
            problem = Problem(where, what, raised)
            told = LoaderError("the data set cannot load a sample", [problem])
            told.add_note(_trace(error))
            raise told from error
        return require_sample(sample, int(self._labels[index]), where)

    @cached_property
    def _labels(self) -> Tensor:
        return self.batched.labels

    def _number(self, index: int) -> int:
        """The number of a sample in its whole split."""
        if isinstance(self.batched, Subset):
            return int(self.batched.indices[index])
        if isinstance(self.batched, InMemory) and self.batched.ids is not None:
            return int(self.batched.ids[index])
        return index


def _trace(error: Exception) -> str:
    """The traceback of a data set, without the frame that asked for the sample."""
    trace = error.__traceback__
    lines = traceback.format_exception(type(error), error, trace and trace.tb_next)
    return "".join(lines).rstrip()
