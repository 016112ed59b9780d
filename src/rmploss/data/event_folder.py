"""Recordings of yours in class folders, as frames: one sample a file, or one a window of time.

Layouts are those of images (`folder.py`), formats those of `recordings.py`, frames those of
`events.py`. Windows of one recording are nearly alike: with split="file" all of them are in one
split, with split="time" the first part of each recording trains, and the rest tests after a gap of
one window.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np

from rmploss.data import _class_folders as class_folders
from rmploss.data._base import ProgressCallback, Splits, ensure_complete
from rmploss.data._event_frames import WindowedFrames
from rmploss.data._in_memory import PrepareFrames
from rmploss.data._own_folder import OwnFolder
from rmploss.data._windows import Piece, split_pieces
from rmploss.data.events import Events
from rmploss.data.recordings import READERS
from rmploss.errors import DataError, Problem


@dataclass(frozen=True, kw_only=True)
class EventFolder(OwnFolder, WindowedFrames):
    """Recordings of yours in class folders (.npz, .npy, .aedat, .bin, .dat), as T frames.

    path, classes, test_share: see `OwnFolder`.
    sensor ... stride_ms: see `WindowedFrames`.
    split: "file": each recording trains or tests; "time": each is split in time, with window_ms.
    """

    split: Literal["file", "time"] = "file"

    name: ClassVar[str] = "event-folder"
    kind: ClassVar[str] = "recordings"
    suffixes: ClassVar[Collection[str]] = READERS.keys()

    def _problems(self) -> list[Problem]:
        problems = self.frame_problems()
        if self.split == "time" and self.window_ms is None:
            problems.append(Problem("data-set.split = 'time'", "is of windows", "window_ms=500"))
        return problems

    def missing(self, root: Path | None) -> list[Problem]:
        """What is wrong with the folders; no recording is read."""
        problems = self._missing(root)
        if not problems and self.split == "time":
            folder = class_folders.locate(self.path, root)
            if class_folders.split_folders(folder):
                what = "has folders of training and tests, which split it already"
                problems = [Problem(str(folder), what, "leave out data.split=time")]
        return problems

    def notes(self, root: Path | None) -> list[str]:
        """See `OwnFolder` (not where each file is split in time) and `sensor_notes`."""
        if self.split == "time":
            return self.sensor_notes(self._everything(root).files)
        train, test = self._listed(root)
        return super().notes(root) + self.sensor_notes([*train.files, *test.files])

    def _everything(self, root: Path | None) -> class_folders.Listed:
        """All recordings, where none is of one split alone."""
        folder = class_folders.locate(self.path, root)
        return class_folders.all_of(folder, self.classes or self._found(root), self.suffixes)

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits: uint8 frames in memory, or read at access."""
        ensure_complete(self, root)
        if self.window_ms is not None:
            return self._windowed(root, seed, T, progress)
        return self._splits(
            root,
            lambda path: self.stored(path, T),
            int(np.prod(self.shape(T))),
            (PrepareFrames(self.augment), PrepareFrames(augment=False)),
            seed,
            progress,
        )

    def _windowed(
        self, root: Path | None, seed: int, T: int, progress: ProgressCallback | None
    ) -> Splits:
        """Both splits of windows."""
        if self.split == "time":
            everything = self._everything(root)
            labels = dict(zip(*everything, strict=True))
            files = everything.files
            return split_pieces(
                self,
                files,
                lambda p, events: self._in_time(p, events, labels[p]),
                T,
                seed,
                progress,
            )
        train, test = self._listed(root)
        places = {
            file: (label, tests)
            for part, tests in ((train, False), (test, True))
            for file, label in zip(*part, strict=True)
        }

        def plan(path: Path, events: Events) -> list[Piece]:
            label, tests = places[path]
            windows = self.windows(path, events, overlap=not tests)
            return [Piece(path, window, label, tests) for window in windows]

        return split_pieces(self, list(places), plan, T, seed, progress)

    def _in_time(self, path: Path, events: Events, label: int) -> list[Piece]:
        """The first part trains, the rest tests; no event is in both."""
        assert self.window_ms is not None
        window = 1000 * self.window_ms
        begin, end = int(events.t[0]), int(events.t[-1]) + 1
        border = end - int(self.test_share * (end - begin))
        if border - begin < window or end - border < 2 * window:
            most = int(min(border - begin, (end - border) / 2) / 1000)
            what = f"lasts {(end - begin) / 1e6:.2f} s: no window for training or for tests"
            fix = f"data.window_ms={max(1, most)} or less, or a larger data.test_share"
            raise DataError("recordings too short", [Problem(str(path), what, fix)])
        parts = ((False, (begin, border)), (True, (border + window, end)))
        return [
            Piece(path, one, label, tests)
            for tests, part in parts
            for one in self.windows(path, events, overlap=not tests, within=part)
        ]
