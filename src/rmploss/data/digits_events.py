"""The bundled digits recorded by a simulated event camera in three saccades, as N-MNIST was.

The camera moves along a triangle; at each of 30 places s the image I (8x8, 0..1) is interpolated
linearly on a sensor of 16x16 pixels. A pixel stores the logarithm L = ln(I + eps) of the light at
its last event. At a place s it emits floor(|ln(I_s + eps) - L| / theta) events, ON if brighter, OFF
if darker (Lichtsteiner et al. 2008), and L moves by theta for each.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rmploss.data._base import Key, ProgressCallback, Splits
from rmploss.data._in_memory import InMemory, PrepareFrames
from rmploss.data.digits import load_splits, read_gray
from rmploss.data.events import Events, Frames, Integrate, to_frames
from rmploss.errors import Problem, UserError
from rmploss.randomness import seeded

SENSOR = (16, 16)
PLACES = 30
STEP_US = 10_000  # the time at one place: 0.3 s in total, as in N-MNIST
REACH = 1.0  # of the camera, in pixels of the image
JITTER = 0.5  # of the triangle's corners, in pixels of the image
EPS = 0.2  # keeps the logarithm of black finite
THETA = 0.5
"""Contrast threshold."""

_CORNERS = np.array([[-1.0, -1.0], [-1.0, 1.0], [1.0, 0.0]])  # (row, column)


@dataclass(frozen=True)
class Record:
    """An image 0..1 `[1, 8, 8]` -> float32 frames `[T, 2, 16, 16]`."""

    T: int
    frames: Frames
    integrate: Integrate
    jitter: bool

    def __call__(self, image: Tensor) -> Tensor:
        """The network's input for one digit."""
        corners = REACH * _CORNERS
        if self.jitter:
            corners = corners + JITTER * (2 * torch.rand(3, 2).double().numpy() - 1)
        events = saccades(image[0].numpy(), corners)
        frames = to_frames(
            events,
            self.T,
            sensor=SENSOR,
            frames=self.frames,
            integrate=self.integrate,
            window=(0, PLACES * STEP_US),
        )
        return torch.from_numpy(frames).float()


@dataclass(frozen=True, eq=False)
class Simulated:
    """The training split: each digit is recorded anew at each access.

    images: 0..1, `[N, 1, 8, 8]`.
    labels: int64 `[N]`.
    prepare: from an image to frames.
    seed: of the path of the camera.
    """

    images: Tensor
    labels: Tensor
    prepare: Record
    seed: int

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        with seeded(self.seed, "augment", key.epoch, key.index):
            return self.prepare(self.images[key.index]), int(self.labels[key.index])


@dataclass(frozen=True, kw_only=True)
class DigitsEvents:
    """The splits of `Digits`, as events in T frames; needs no files.

    frames: 0/1 or counts.
    integrate: "time" by default, since the camera moves at a constant speed.
    augment: move the corners of the path of each training sample by up to half a pixel.
    """

    frames: Frames = "binary"
    integrate: Integrate = "time"
    augment: bool = True

    name: ClassVar[str] = "digits-events"
    num_classes: ClassVar[int] = 10
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    temporal: ClassVar[bool] = True

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, 16, 16)`; channel 0 is OFF, 1 is ON."""
        return (T, 2, *SENSOR)

    def missing(self, root: Path | None) -> list[Problem]:
        """Nothing: scikit-learn brings the images."""
        return []

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits; a training sample is simulated at each access."""
        if PLACES < T:
            problem = Problem(
                f"T = {T}", f"the camera records at {PLACES} places", f"T of at most {PLACES}"
            )
            raise UserError("too many frames", [problem])
        (images, labels), (test_images, test_labels) = load_splits()
        train = Simulated(images, labels, self._prepare(T, self.augment), seed)
        still = self._prepare(T, jitter=False)
        frames = torch.stack([still(image) for image in test_images])
        return Splits(train, InMemory(frames, test_labels, PrepareFrames(augment=False)))

    def read(self, path: Path, T: int) -> Tensor:
        """An image file of a digit, recorded as the test split is, float32 `[T, 2, 16, 16]`."""
        return self._prepare(T, jitter=False)(read_gray(path))

    def _prepare(self, T: int, jitter: bool) -> Record:
        return Record(T, self.frames, self.integrate, jitter)


def saccades(image: np.ndarray, corners: np.ndarray) -> Events:
    """The events of a camera that moves over an image 0..1 `[h, w]` along corners `[3, 2]`."""
    light = np.log(_project(image, _path(corners)) + EPS) / THETA
    level = light[0].copy()
    changes = np.zeros_like(light)
    for place in range(1, PLACES):
        np.trunc(light[place] - level, out=changes[place])
        level += changes[place]
    place, y, x = np.nonzero(changes)
    change = changes[place, y, x]
    t, x, y, p = (
        np.repeat(value, np.abs(change).astype(np.int64))
        for value in (place * STEP_US, x, y, (change > 0).astype(np.int64))
    )
    return Events(t, x, y, p)


def _path(corners: np.ndarray) -> np.ndarray:
    """The camera's position at each place, `[PLACES, 2]`: at constant speed along the triangle."""
    leg, along = np.divmod(np.arange(PLACES) * 3 / PLACES, 1)
    start, end = corners[leg.astype(int)], corners[(leg.astype(int) + 1) % 3]
    return start + along[:, None] * (end - start)


def _project(image: np.ndarray, path: np.ndarray) -> np.ndarray:
    """The image on the sensor at each place, `[PLACES, H, W]`: R @ image @ C.T, linear weights."""
    rows, columns = (
        np.maximum(0, 1 - np.abs(_positions(n, side) + path[:, [axis], None] - np.arange(side)))
        for axis, (n, side) in enumerate(zip(SENSOR, image.shape, strict=True))
    )
    return rows @ image @ columns.transpose(0, 2, 1)


def _positions(n: int, side: int) -> np.ndarray:
    """The centers of n sensor pixels, in pixels of an image of that side, `[n, 1]`."""
    return ((np.arange(n) + 0.5) * side / n - 0.5)[:, None]
