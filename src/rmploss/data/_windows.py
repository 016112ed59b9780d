"""Splits of windows: several samples of one recording, each a part of its time."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

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
    """
    made = class_folders.read_all(files, _Reader(kind, plan, T).read, progress, "recordings")
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
    """From a recording to its pieces and their frames, as long as these fit memory."""

    def __init__(self, kind: WindowedFrames, plan: Plan, T: int) -> None:
        self.kind, self.plan, self.T = kind, plan, T
        self.held = 0

    def read(self, path: Path) -> tuple[list[Piece], Tensor | None]:
        """The pieces of a recording, and uint8 `[N, T, C, H, W]`; None beyond the memory."""
        events = self.kind.events(path)
        pieces = self.plan(path, events)
        if self.held > _own_folder.MEMORY_BYTES:
            return pieces, None
        frames = self.kind.cut(path, events, [piece.window for piece in pieces], self.T)
        self.held += frames.nbytes
        return pieces, None if self.held > _own_folder.MEMORY_BYTES else frames


def _stored(kind: WindowedFrames, T: int, piece: Piece) -> Tensor:
    """The frames of one piece, uint8 `[T, C, H, W]`; its whole recording is read."""
    return kind.cut(piece.path, kind.events(piece.path), [piece.window], T)[0]


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
