"""CIFAR10-DVS (Li et al. 2017): 10,000 CIFAR-10 images moved before a DVS128 camera, 128x128.

Each recording becomes T frames of 48x48 pixels, 0/1, with equal numbers of events: "we used the 0/1
spike format directly" (paper, section 5). Training samples are flipped and rolled. Reading all the
recordings takes minutes, so the frames are cached, one file for each set of options.

The published results use three different 9000/1000 splits (`SPLITS`).
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rmploss.data._base import (
    ProgressCallback,
    Splits,
    cache_root,
    data_root,
    ensure_complete,
    missing_folder,
)
from rmploss.data._frame_cache import load_or_make
from rmploss.data._in_memory import InMemory, Prepare, PrepareFrames
from rmploss.data.aedat import SENSOR, read_aedat
from rmploss.data.events import Events, Frames, Integrate, to_frames
from rmploss.errors import Problem, UserError
from rmploss.randomness import derive

PER_CLASS = 1000
CACHE_FORMAT = 1
SOURCE = "https://figshare.com/articles/dataset/CIFAR10-DVS_New/4724671"

Split = Literal["random", "first90", "files0-899"]
SPLITS: dict[Split, str] = {
    "random": "a tenth of all recordings, drawn by split_seed: the paper's words, members unknown",
    "first90": "last tenth of each class by file name (0, 1, 10, 100, ...): PLIF, SEW-ResNet, DSR",
    "files0-899": "recordings 900-999 of each class by number: TET and the paper's sibling code",
}


@dataclass(frozen=True, kw_only=True)
class CIFAR10DVS:
    """Recordings as T frames.

    split: which tenth is the test split, see `SPLITS`.
    split_seed: of the split "random"; not the run's seed, so that runs share their test split.
    size: side of the frames in pixels.
    frames: 0/1 or counts.
    integrate: "number", as in the code of the paper's authors, puts equally many events into each
        frame, whatever the speed.
    augment: flip and roll training samples.
    """

    split: Split = "random"
    split_seed: int = 0
    size: int = 48
    frames: Frames = "binary"
    integrate: Integrate = "number"
    augment: bool = True

    name: ClassVar[str] = "cifar10-dvs"
    num_classes: ClassVar[int] = 10
    classes: ClassVar[tuple[str, ...]] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    temporal: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if self.size < 1:
            problem = Problem(f"data-set.size = {self.size}", "must be at least 1", "48")
            raise UserError(f"cannot make data set {self.name!r}", [problem])

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, size, size)`; channel 0 is OFF, 1 is ON."""
        return (T, 2, self.size, self.size)

    def missing(self, root: Path | None) -> list[Problem]:
        """The classes of which recordings are absent."""
        folder = data_root(root) / self.name
        steps = f"unpack the ten .zip files of {SOURCE} in {folder}"
        if not folder.is_dir():
            return [missing_folder(folder, steps)]
        problems = []
        for label in self.classes:
            present = {path.name for path in (folder / label).glob("*.aedat")}
            absent = [file for file in _files(label) if file not in present]
            if absent:
                what = f"{len(absent)} of {PER_CLASS} recordings absent, first {absent[0]}"
                problems.append(Problem(str(folder / label), what, steps))
        return problems

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits; `progress` is called while frames are computed that are not in the cache."""
        ensure_complete(self, root)
        folder = data_root(root) / self.name
        paths = [folder / label / file for label in self.classes for file in _files(label)]
        samples = torch.from_numpy(
            load_or_make(
                cache_root(root) / self.name,
                self._description(paths, T),
                len(paths),
                lambda index: self._pack(paths[index], T),
                progress,
            )
        )
        labels = torch.arange(len(paths)) // PER_CLASS
        test = held_out_mask(len(paths), self.split, self.split_seed)
        return Splits(
            InMemory(samples[~test], labels[~test], self._prepare(T, self.augment), seed),
            InMemory(samples[test], labels[test], self._prepare(T, augment=False)),
        )

    def read(self, path: Path, T: int) -> Tensor:
        """A recording (AEDAT 2.0) as T frames, float32 `[T, 2, size, size]`."""
        return torch.from_numpy(self._frames(path, T)).float()

    def _description(self, paths: Sequence[Path], T: int) -> dict[str, object]:
        """Everything the frames depend on: the recordings (names and sizes) and the options."""
        sizes = "\n".join(f"{path.name} {path.stat().st_size}" for path in paths)
        return {
            "format": CACHE_FORMAT,
            "T": T,
            "size": self.size,
            "frames": self.frames,
            "integrate": self.integrate,
            "recordings": hashlib.sha256(sizes.encode()).hexdigest(),
        }

    def _pack(self, path: Path, T: int) -> np.ndarray:
        """The frames of one recording, flat; 0/1 frames as bits."""
        frames = self._frames(path, T)
        return np.packbits(frames) if self.frames == "binary" else frames.reshape(-1)

    def _frames(self, path: Path, T: int) -> np.ndarray:
        """The frames of one recording, uint8 `[T, 2, size, size]`."""
        return to_frames(
            _orient(read_aedat(path)),
            T,
            sensor=SENSOR,
            size=self.size,
            frames=self.frames,
            integrate=self.integrate,
        )

    def _prepare(self, T: int, augment: bool) -> "Unpack":
        return Unpack(self.shape(T), self.frames == "binary", PrepareFrames(augment))


class Unpack(Prepare):
    """Cached samples, uint8 `[B, bytes]` -> float32 `[B, T, 2, H, W]`.

    shape: of one sample.
    bits: whether a byte holds eight values, the first in its highest bit.
    prepare: from frames to the network's input.
    """

    places: Tensor

    def __init__(self, shape: tuple[int, ...], bits: bool, prepare: PrepareFrames) -> None:
        super().__init__()
        self.shape, self.bits, self.prepare = shape, bits, prepare
        self.draws = prepare.draws
        self.register_buffer("places", torch.arange(7, -1, -1, dtype=torch.uint8), persistent=False)

    def forward(self, packed: Tensor, words: Tensor) -> Tensor:
        """The network's inputs."""
        if self.bits:
            packed = ((packed.unsqueeze(2) >> self.places) & 1).flatten(1)
            packed = packed[:, : math.prod(self.shape)]
        return self.prepare(packed.view(-1, *self.shape), words)


def held_out_mask(n: int, split: Split, split_seed: int) -> Tensor:
    """True at the test samples of n recordings, in order of class and number; bool `[n]`."""
    test = torch.zeros(n, dtype=torch.bool)
    if split == "random":
        order = sorted(range(n), key=lambda index: derive(split_seed, "cifar10-dvs test", index))
        test[order[: n // 10]] = True
        return test
    numbers = range(PER_CLASS) if split == "files0-899" else sorted(range(PER_CLASS), key=str)
    test.view(-1, PER_CLASS)[:, list(numbers)[PER_CLASS * 9 // 10 :]] = True
    return test


def _files(label: str) -> list[str]:
    """The official file names of a class, by number."""
    return [f"cifar10_{label}_{number}.aedat" for number in range(PER_CLASS)]


def _orient(events: Events) -> Events:
    """Row 127 - x, column y, as in the code of the paper's authors.

    The camera lay on its side, so x of the address is vertical. The picture is upright but
    mirrored (its column would be 127 - y), which does not matter to training with flips.
    """
    return Events(events.t, events.y, SENSOR[0] - 1 - events.x, events.p)
