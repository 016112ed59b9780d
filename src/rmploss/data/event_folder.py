"""Recordings of yours in class folders, one sample a file, as frames.

Layouts and splits are those of images (`folder.py`), formats those of `recordings.py`, frames those
of `events.py`.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rmploss.data._base import ProgressCallback, Splits, ensure_complete
from rmploss.data._in_memory import PrepareFrames
from rmploss.data._own_folder import OwnFolder
from rmploss.data.events import Events, Frames, Integrate, to_frames
from rmploss.data.recordings import READERS, extent, read_recording
from rmploss.errors import DataError, Problem, UserError


@dataclass(frozen=True, kw_only=True)
class EventFolder(OwnFolder):
    """Recordings of yours in class folders (.npz, .npy, .aedat, .bin, .dat), as T frames.

    path, classes, test_share: see `OwnFolder`.
    sensor: (W, H) of the camera in pixels.
    size: side of the frames; none: those of the sensor.
    frames: 0/1 or counts.
    integrate: "number" gives each frame as many events, "time" the same duration.
    polarity: "two" channels for OFF and ON, or "one" for both.
    augment: flip and roll training recordings; not for what has a direction.
    """

    sensor: tuple[int, ...] = (128, 128)
    size: int | None = 48
    frames: Frames = "binary"
    integrate: Integrate = "number"
    polarity: Literal["two", "one"] = "two"
    augment: bool = True

    name: ClassVar[str] = "event-folder"
    temporal: ClassVar[bool] = True
    kind: ClassVar[str] = "recordings"
    suffixes: ClassVar[Collection[str]] = READERS.keys()

    def _problems(self) -> list[Problem]:
        problems = []
        if len(self.sensor) != 2 or min(self.sensor) < 1:
            where = f"data-set.sensor = {self.sensor}"
            problems.append(Problem(where, "must be (W, H) in pixels", "(128, 128)"))
        if self.size is not None and self.size < 1:
            problems.append(Problem(f"data-set.size = {self.size}", "must be at least 1", "48"))
        return problems

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, size, size)`, channel 0 OFF and 1 ON; one channel with polarity="one"."""
        W, H = self.sensor if self.size is None else (self.size, self.size)
        return (T, 2 if self.polarity == "two" else 1, H, W)

    def missing(self, root: Path | None) -> list[Problem]:
        """What is wrong with the folders; no recording is read."""
        return self._missing(root)

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits: uint8 frames in memory, or read at access."""
        ensure_complete(self, root)
        return self._splits(
            root,
            lambda path: self.stored(path, T),
            int(np.prod(self.shape(T))),
            (PrepareFrames(self.augment), PrepareFrames(augment=False)),
            seed,
            progress,
        )

    def read(self, path: Path, T: int) -> Tensor:
        """A recording as the test split prepares it, float32 `[T, C, H, W]`."""
        return self.stored(path, T).float()

    def stored(self, path: Path, T: int) -> Tensor:
        """The frames of a recording, uint8 `[T, C, H, W]`."""
        W, H = self.sensor
        events = read_recording(path, (H, W))
        try:
            frames = to_frames(
                self._merged(events),
                T,
                sensor=(H, W),
                size=self.size,
                frames=self.frames,
                integrate=self.integrate,
            )
        except UserError as error:
            rows, columns = extent(events)
            fix = f"data.sensor=({max(W, columns)},{max(H, rows)})"
            problems = [
                Problem(f"{path}: {p.where}", p.what, fix if "outside" in p.what else p.fix)
                for p in error.problems
            ]
            raise DataError(error.title, problems) from None
        return torch.from_numpy(frames[:, : self.shape(T)[1]])

    def _merged(self, events: Events) -> Events:
        """The events, all in channel 0 with polarity="one"."""
        if self.polarity == "two":
            return events
        return Events(events.t, events.x, events.y, np.zeros_like(events.p))
