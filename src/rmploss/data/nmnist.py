"""N-MNIST: MNIST recorded by a moving event camera, 34x34 pixels (Orchard et al. 2015).

License: CC BY-SA 4.0. A file is one recording of some 0.3 s (three saccades). Each event has 5
bytes: x, y, then, big-endian, bit 23 the polarity (1 ON) and bits 22-0 the time in microseconds.
An event with y = 240 is no pixel but an overflow of the camera's clock: it and all later times are
2^13 us later than written, as the data set's own reader has it.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rmploss.data._base import (
    Key,
    ProgressCallback,
    Splits,
    data_root,
    ensure_complete,
    missing_folder,
)
from rmploss.data.events import Events, Frames, Integrate, recording_error, to_frames
from rmploss.errors import Problem

SENSOR = (34, 34)
OVERFLOW_Y, OVERFLOW_US = 240, 1 << 13
# The folder under the root and those of the splits: of the official archives, and of the small set
# of 1,000 + 100 recordings.
LAYOUTS = (("nmnist", "Train", "Test"), ("nmnist_small", "train", "test"))


@dataclass(frozen=True, kw_only=True)
class NMNIST:
    """Recordings as T frames, read at access. No augmentation: a flipped digit is no digit.

    frames: 0/1 or counts.
    integrate: "time" by default, since the saccades take equal times.
    """

    frames: Frames = "binary"
    integrate: Integrate = "time"

    name: ClassVar[str] = "nmnist"
    num_classes: ClassVar[int] = 10
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    temporal: ClassVar[bool] = True

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, 34, 34)`; channel 0 is OFF, 1 is ON."""
        return (T, 2, *SENSOR)

    def missing(self, root: Path | None) -> list[Problem]:
        """The digits without recordings."""
        fix = f"unpack Train.zip and Test.zip of N-MNIST in {data_root(root) / 'nmnist'}"
        problems = []
        for folder in _folders(data_root(root)):
            if not folder.is_dir():
                problems.append(missing_folder(folder, fix))
                continue
            empty = [d for d in self.classes if not _recordings(folder / d)]
            problems += [Problem(str(folder / d), "no recordings (*.bin) here", fix) for d in empty]
        return problems

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits; only the file names are kept in memory."""
        ensure_complete(self, root)
        train, test = (
            Recordings([_recordings(folder / digit) for digit in self.classes], T, self)
            for folder in _folders(data_root(root))
        )
        return Splits(train, test)

    def read(self, path: Path, T: int) -> Tensor:
        """A recording (.bin) as T frames, float32 `[T, 2, 34, 34]`."""
        return _frames(path, T, self)


class Recordings:
    """One split: the files of each class, read at access."""

    def __init__(self, files: list[list[Path]], T: int, options: NMNIST) -> None:
        self._files = [file for part in files for file in part]
        self._T, self._options = T, options
        self.labels: Tensor = torch.tensor([i for i, part in enumerate(files) for _ in part])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        frames = _frames(self._files[key.index], self._T, self._options)
        return frames, int(self.labels[key.index])


def _frames(path: Path, T: int, options: NMNIST) -> Tensor:
    """A recording as T frames, float32 `[T, 2, 34, 34]`."""
    frames = to_frames(
        read_bin(path),
        T,
        sensor=SENSOR,
        frames=options.frames,
        integrate=options.integrate,
    )
    return torch.from_numpy(frames).float()


def read_bin(path: Path, sensor: tuple[int, int] = SENSOR) -> Events:
    """The events of a file. Raises `DataError`, with the byte offset, for a malformed file.

    sensor: (H, W) of the camera.
    """
    data = path.read_bytes()
    if len(data) % 5:
        whole = len(data) - len(data) % 5
        raise recording_error(
            path, whole, f"the last event is cut off: {len(data) % 5} of its 5 bytes"
        )
    x, y, high, middle, low = np.frombuffer(data, np.uint8).reshape(-1, 5).T.astype(np.int64)
    overflow = y == OVERFLOW_Y
    t = ((high & 127) << 16 | middle << 8 | low) + OVERFLOW_US * np.cumsum(overflow)
    (pixels,) = np.nonzero(~overflow)
    if len(pixels) == 0:
        overflows = f", only {len(y)} overflows of the clock" if len(y) else ""
        raise recording_error(path, 0, f"the file holds no events{overflows}")
    x, y, t, p = x[pixels], y[pixels], t[pixels], high[pixels] >> 7
    for wrong, why in (
        ((x >= sensor[1]) | (y >= sensor[0]), f"a pixel outside {sensor[1]}x{sensor[0]}"),
        (np.diff(t, prepend=t[0]) < 0, "time runs back"),
    ):
        if wrong.any():
            event = int(wrong.argmax())
            values = f"event {pixels[event]}: x {x[event]}, y {y[event]}, time {t[event]} us"
            raise recording_error(path, 5 * int(pixels[event]), f"{why} ({values})")
    return Events(t=t, x=x, y=y, p=p)


def _recordings(folder: Path) -> list[Path]:
    """The recordings of one digit; "._<name>" is metadata that macOS puts beside files."""
    return sorted(path for path in folder.glob("*.bin") if not path.name.startswith("."))


def _folders(root: Path) -> tuple[Path, Path]:
    """The training and test folders of the layout that exists; else those of the official one."""
    for top, train, test in LAYOUTS:
        if (root / top).is_dir():
            return root / top / train, root / top / test
    top, train, test = LAYOUTS[0]
    return root / top / train, root / top / test
