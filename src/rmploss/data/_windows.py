"""Splits of windows: several samples of one recording, each a part of its time."""

import warnings
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from rmploss.data import _class_folders as class_folders
from rmploss.data import _own_folder
from rmploss.data._base import ProgressCallback, Splits
from rmploss.data._event_frames import Window, WindowedFrames
from rmploss.data._in_memory import InMemory, PrepareFrames
from rmploss.data._own_folder import AtAccess
from rmploss.data.events import Events
from rmploss.errors import DataError, Problem


class Piece(NamedTuple):
    """A part of a recording that is one sample.

    path: of the recording.
    window: None: all of it.
    label: its class.
    tests: True in the test split.
    """

    path: Path
    window: Window | None
    label: int
    tests: bool


Plan = Callable[[Path, Events], list[Piece]]
"""The pieces of a recording; raises `DataError` if there are none."""


def split_pieces(
    kind: WindowedFrames,
    files: Sequence[Path],
    plan: Plan,
    T: int,
    seed: int,
    progress: ProgressCallback | None,
) -> Splits:
    """Both splits: every recording is read once; frames are in memory, or read at access.

    kind: the options of the frames.
    files: all recordings.
    plan: which parts of each are samples.
    T: frames of a sample.
    seed: of the augmentation.
    progress: called after every recording.

    Warns of windows without events: their frames are dark.
    """
    reader = _Reader(kind, plan, T)
    made = class_folders.read_all(files, reader.read, progress, "recordings")
    reader.warn_of_dark()
    pieces = [piece for some, _ in made for piece in some]
    _require_both(pieces)
    prepare = PrepareFrames(kind.augment), PrepareFrames(augment=False)
    frames = [part for _, part in made if part is not None]
    if len(frames) < len(made):
        stored = partial(_stored, kind, T)
        train, test = (_items(pieces, tests) for tests in (False, True))
        return Splits(AtAccess(train, stored, prepare[0], seed), AtAccess(test, stored, prepare[1]))
    everything = torch.cat(frames)
    chosen = torch.tensor([piece.tests for piece in pieces])
    labels = torch.tensor([piece.label for piece in pieces])
    return Splits(
        InMemory(everything[~chosen], labels[~chosen], prepare[0], seed),
        InMemory(everything[chosen], labels[chosen], prepare[1]),
    )


class _Reader:
    """From a recording to its pieces and their frames, as long as these fit memory.

    Several threads read at once: memory is taken before frames are made.
    """

    def __init__(self, kind: WindowedFrames, plan: Plan, T: int) -> None:
        self.kind, self.plan, self.T = kind, plan, T
        self._bytes = prod(kind.shape(T))
        self._held = 0
        self._full = False
        self._dark: list[Piece] = []
        self._lock = Lock()

    def read(self, path: Path) -> tuple[list[Piece], Tensor | None]:
        """The pieces of a recording, and uint8 `[N, T, C, H, W]`; None beyond the memory."""
        events = self.kind.events(path)
        pieces = self.plan(path, events)
        dark = _without_events(events, pieces)
        with self._lock:
            self._dark += dark
            self._held += len(pieces) * self._bytes
            self._full |= self._held > _own_folder.MEMORY_BYTES
            full = self._full
        if full:
            return pieces, None
        return pieces, self.kind.cut(events, [piece.window for piece in pieces], self.T)

    def warn_of_dark(self) -> None:
        """Warn of the windows without events, if there are some."""
        if self._dark:
            first = min(self._dark, key=lambda piece: (piece.path, piece.window or (0, 0)))
            when = "" if first.window is None else f" from {first.window[0]} us"
            text = f"{len(self._dark)} windows hold no event, first that of {first.path}{when}"
            warnings.warn(text, RuntimeWarning, stacklevel=4)


def _without_events(events: Events, pieces: Sequence[Piece]) -> list[Piece]:
    """The pieces in which no event lies."""
    some = [piece for piece in pieces if piece.window is not None]
    borders = np.array([piece.window for piece in some], np.int64).reshape(-1, 2)
    first, stop = np.searchsorted(events.t, borders).T
    return [piece for piece, empty in zip(some, first == stop, strict=True) if empty]


def _stored(kind: WindowedFrames, T: int, piece: Piece) -> Tensor:
    """The frames of one piece, uint8 `[T, C, H, W]`; its whole recording is read."""
    return kind.cut(kind.events(piece.path), [piece.window], T)[0]


def _items(pieces: Sequence[Piece], tests: bool) -> tuple[list[Piece], list[int]]:
    """The pieces of one split, and the class of each."""
    chosen = [piece for piece in pieces if piece.tests == tests]
    return chosen, [piece.label for piece in chosen]


def _require_both(pieces: Sequence[Piece]) -> None:
    """Raise `DataError` if a split is empty."""
    for tests, word in ((False, "trains"), (True, "tests")):
        if not any(piece.tests == tests for piece in pieces):
            fix = "more recordings, or another data.test_share"
            raise DataError(
                "the split leaves something empty", [Problem("data", f"none {word}", fix)]
            )
