"""The protocols of a data set: samples by key, two splits, and the shape of one input.

A sample is a function of (seed, epoch, index): its augmentation is drawn from randomness derived
for exactly that triple, so it does not depend on batches, workers, ranks or interruptions.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from rmploss.errors import DataError, Problem

ProgressCallback = Callable[[int, int], None]
"""Called with (done, total) during long work."""


class Key(NamedTuple):
    """The epoch and index of a sample; both decide its augmentation."""

    epoch: int
    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # `tuple.index` is unused


class Samples(Protocol):
    """One split of a data set.

    `samples[Key(epoch, index)]` is (x, label); x is float32, dimensionless, `[C, H, W]` for images
    and `[T, C, H, W]` for events.
    """

    @property
    def labels(self) -> Tensor:
        """All labels, int64 `[N]`."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Key, /) -> tuple[Tensor, int]: ...


@dataclass(frozen=True)
class Splits:
    """The training and the test split of a data set."""

    train: Samples
    test: Samples


class DataSet(Protocol):
    """A data set: a frozen dataclass whose fields are its options.

    name: of the set.
    num_classes, classes: their number and names, `()` without names. Of the class; a set whose
        options decide them has properties instead.
    temporal: True for events.
    """

    name: ClassVar[str]
    num_classes: ClassVar[int]
    classes: ClassVar[tuple[str, ...]]
    temporal: ClassVar[bool]

    def shape(self, T: int) -> tuple[int, ...]:
        """The shape of one input: `(C, H, W)`, or `(T, C, H, W)` if the set is temporal."""
        ...

    def missing(self, root: Path | None) -> list[Problem]:
        """The files absent under `root`, and how to get them. Cheap, and writes nothing."""
        ...

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits.

        root: the folder of the data sets; None: the default (`data_root`).
        seed: of the augmentation of the training split.
        T: number of frames of an event sample; an image does not depend on it.
        progress: called during a long preparation.
        Raises `DataError` for missing, damaged or altered files.
        """
        ...


@runtime_checkable
class OwnFiles(Protocol):
    """A data set of files that a user names."""

    @property
    def path(self) -> str:
        """Where the files are."""
        ...

    def settled(self, root: Path | None) -> dict[str, Any]:
        """The options that follow from the files, for the recipe of a run; empty if they lack."""
        ...

    def notes(self, root: Path | None) -> list[str]:
        """What is allowed in the files and may not be meant, in sentences."""
        ...


@runtime_checkable
class ReadsFiles(Protocol):
    """A data set that reads files of its kind which are in no split: an image, a recording."""

    def read(self, path: Path, T: int) -> Tensor:
        """A file as the test split would give it: float32 `[C, H, W]` or `[T, C, H, W]`.

        path: of an image or a recording.
        T: number of frames of an event sample; an image does not depend on it.
        Raises `DataError` for a file that cannot be read.
        """
        ...


@runtime_checkable
class ReadsWindows(Protocol):
    """A data set whose samples are windows of long recordings."""

    def read_windows(self, path: Path, T: int) -> Iterator[Tensor]:
        """All windows of a recording, one after the other, at least one: float32 `[T, C, H, W]`.

        path: of a recording.
        T: number of frames of each window.
        Raises `DataError` for a file that cannot be read.
        """
        ...


class _Checked(Protocol):
    """The part of a data set that says what is missing."""

    name: ClassVar[str]

    def missing(self, root: Path | None) -> list[Problem]: ...


def ensure_complete(data_set: _Checked, root: Path | None) -> None:
    """Raise `DataError` with every missing file, if there is one."""
    problems = data_set.missing(root)
    if problems:
        raise DataError(f"{data_set.name} is not complete", problems)


def missing_folder(folder: Path, fix: str) -> Problem:
    """The problem of a data folder that does not exist."""
    what = "no such folder (--data-dir or RMPLOSS_DATA names another one)"
    return Problem(str(folder), what, fix)


def data_root(explicit: Path | None) -> Path:
    """The folder that holds the data sets: `explicit`, else $RMPLOSS_DATA, else ./data."""
    return (explicit or Path(os.environ.get("RMPLOSS_DATA") or "data")).expanduser()


def cache_root(root: Path | None) -> Path:
    """The folder of computed files: $RMPLOSS_CACHE, else `cache` in the data root."""
    return Path(os.environ.get("RMPLOSS_CACHE") or data_root(root) / "cache").expanduser()
