"""Seven desk objects before a real DVS128 camera (BioLab, Federal University of Uberlandia, 2018).

Sensor and file format are those of CIFAR10-DVS, but each object has one recording of some 18 s,
whose windows are the samples. Neighboring windows are nearly alike, so the split is by time: the
first 75 % of each recording train and the rest tests, with a gap of one window. The set is for
trying a network on real events; no paper reports its accuracy.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from rmploss.data._base import (
    ProgressCallback,
    Splits,
    data_root,
    ensure_complete,
    missing_folder,
)
from rmploss.data._event_frames import EventFrames
from rmploss.data._in_memory import InMemory, PrepareFrames
from rmploss.data.aedat import SENSOR, read_aedat
from rmploss.data.events import Events, Frames, Integrate
from rmploss.errors import Problem, UserError

TRAIN_SHARE = 0.75
FOLDER = Path("dvs128_objects", "raw", "session1_2018-10-06")
FILES = {
    "box": "Caixa.aedat",
    "mug": "Caneca.aedat",
    "cell_phone": "Celular.aedat",
    "utility_knife": "Estilete.aedat",
    "mechanical_pencil": "Lapiseira.aedat",
    "mouse": "Mouse.aedat",
    "scissors": "Tesoura.aedat",
}


@dataclass(frozen=True, kw_only=True)
class DVS128Objects:
    """Windows of `window_ms` milliseconds, as T frames.

    window_ms: the duration of a window.
    stride_ms: from one training window to the next; these may overlap, test windows do not.
    size: side of the frames in pixels.
    frames: 0/1 or counts.
    integrate: "time" by default, since a window is a duration.
    augment: flip and roll training windows.
    """

    window_ms: int = 500
    stride_ms: int = 100
    size: int = 48
    frames: Frames = "binary"
    integrate: Integrate = "time"
    augment: bool = True

    name: ClassVar[str] = "dvs128-objects"
    num_classes: ClassVar[int] = len(FILES)
    classes: ClassVar[tuple[str, ...]] = tuple(FILES)
    temporal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        problems = [
            Problem(f"data-set.{field} = {value}", "must be at least 1")
            for field, value in vars(self).items()
            if isinstance(value, int) and not isinstance(value, bool) and value < 1
        ]
        if problems:
            raise UserError(f"cannot make data set {self.name!r}", problems)

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, size, size)`; channel 0 is OFF, 1 is ON."""
        return (T, 2, self.size, self.size)

    def missing(self, root: Path | None) -> list[Problem]:
        """The absent recordings."""
        folder = data_root(root) / FOLDER
        fix = f"put the files of DataSet2 of github.com/eberlawrence/DVS128_BioLab in {folder}"
        if not folder.is_dir():
            return [missing_folder(folder, fix)]
        return [
            Problem(str(folder / file), "no such file", fix)
            for file in FILES.values()
            if not (folder / file).is_file()
        ]

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits, uint8 frames in memory."""
        ensure_complete(self, root)
        train, test = [], []
        for file in FILES.values():
            recording = _orient(read_aedat(data_root(root) / FOLDER / file))
            first, second = self._starts(recording)
            train.append(self._cut(recording, first, T))
            test.append(self._cut(recording, second, T))
        return Splits(
            InMemory(*_concatenate(train), PrepareFrames(self.augment), seed),
            InMemory(*_concatenate(test), PrepareFrames(augment=False)),
        )

    def read(self, path: Path, T: int) -> Tensor:
        """The first window of a recording (AEDAT) as T frames, float32 `[T, 2, size, size]`."""
        recording = _orient(read_aedat(path))
        begin = int(recording.t[0])
        return self._cut(recording, [begin], T)[0].float()

    def read_windows(self, path: Path, T: int) -> Iterator[Tensor]:
        """All windows of a recording, one after the other, each float32 `[T, 2, size, size]`."""
        recording = _orient(read_aedat(path))
        window = 1000 * self.window_ms
        begin, end = int(recording.t[0]), int(recording.t[-1]) + 1
        for start in range(begin, max(end - window, begin) + 1, window):
            yield self._cut(recording, [start], T)[0].float()

    def _starts(self, recording: Events) -> tuple[range, range]:
        """The starts of training and test windows, in microseconds; the splits share no event."""
        window, stride = 1000 * self.window_ms, 1000 * self.stride_ms
        begin, end = int(recording.t[0]), int(recording.t[-1]) + 1
        border = begin + int(TRAIN_SHARE * (end - begin))
        train = range(begin, border - window + 1, stride)
        test = range(border + window, end - window + 1, window)
        if not train or not test:
            where = f"data-set.window_ms = {self.window_ms}"
            most = int((1 - TRAIN_SHARE) * (end - begin) / 2000)
            what = f"leaves no test window in a recording of {(end - begin) / 1e6:.1f} s"
            raise UserError("windows too long", [Problem(where, what, f"at most {most}")])
        return train, test

    def _cut(self, recording: Events, starts: Sequence[int], T: int) -> Tensor:
        """Frames uint8 `[N, T, 2, size, size]` of the windows."""
        kind = EventFrames(
            sensor=SENSOR,
            size=self.size,
            frames=self.frames,
            integrate=self.integrate,
        )
        return kind.cut(recording, [(start, start + 1000 * self.window_ms) for start in starts], T)


def _orient(events: Events) -> Events:
    """Put row 0 on top: the address counts rows from the bottom, as jAER does."""
    return Events(events.t, events.x, SENSOR[0] - 1 - events.y, events.p)


def _concatenate(parts: list[Tensor]) -> tuple[Tensor, Tensor]:
    """All frames in one tensor, and the class of each: the index of its part."""
    labels = [label for label, part in enumerate(parts) for _ in part]
    return torch.cat(parts), torch.tensor(labels)
