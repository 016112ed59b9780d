"""Photographs of any size, read at access: random crops to train, the center to test.

Training images: a random crop of random size and aspect, scaled to the side, and a flip; test
images: the short side scaled to 8/7 of the side, center crop; both normalized. At a side of 224 it
is the paper's preprocessing of ImageNet (section 5).
"""

from collections.abc import Callable, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rmploss.data._base import Key
from rmploss.data._in_memory import Standardize
from rmploss.data.images import open_image
from rmploss.errors import Problem
from rmploss.randomness import seeded

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of ImageNet's pixels, in 0..1."""
standardize = Standardize(MEAN, STD)


class Transforms(NamedTuple):
    """Those of torchvision."""

    random_crop: Callable[[Image.Image], Image.Image]
    center_crop: Callable[[Image.Image], Image.Image]
    flip: Callable[[Tensor], Tensor]
    to_tensor: Callable[[Image.Image], Tensor]


@cache
def transforms(side: int) -> Transforms:
    """Of inputs with that side in pixels."""
    # Not on import: a torchvision that was built for another torch cannot be imported.
    from torchvision.transforms import v2

    return Transforms(
        random_crop=v2.RandomResizedCrop(side, antialias=True),
        center_crop=v2.Compose(
            [v2.Resize(round(side * 8 / 7), antialias=True), v2.CenterCrop(side)]
        ),
        flip=v2.RandomHorizontalFlip(),
        to_tensor=v2.functional.pil_to_tensor,
    )


@cache
def unfit() -> Problem | None:
    """Why torchvision cannot be used; the first error counts, a second import raises another."""
    try:
        transforms(224)
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        what = f"does not fit torch {version('torch')}: {reason}"
        fix = "pip install --upgrade torch torchvision, both from one index"
        return Problem("torchvision", what, fix)
    return None


def centered(image: Image.Image, side: int) -> Tensor:
    """A photograph in RGB as a test image, float32 `[3, side, side]`."""
    _, center_crop, _, to_tensor = transforms(side)
    return standardize(to_tensor(center_crop(image)))


class Photographs:
    """One split.

    files, labels: of the samples.
    side: of the inputs in pixels.
    read: a file as an image in RGB.
    seed: of the augmentation; None: no augmentation.
    """

    def __init__(
        self,
        files: Sequence[Path],
        labels: Sequence[int],
        side: int,
        read: Callable[[Path], Image.Image],
        seed: int | None,
    ) -> None:
        self._files, self._side, self._read, self._seed = files, side, read, seed
        self.labels: Tensor = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self._files)

    def content(self, index: int) -> bytes:
        """The file of a sample."""
        file = self._files[index]
        if not file.is_file():
            open_image(file)  # which says why it cannot be read, and does not wait for a pipe
        return file.read_bytes()

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        image, label = self._read(self._files[key.index]), int(self.labels[key.index])
        if self._seed is None:
            return centered(image, self._side), label
        random_crop, _, flip, to_tensor = transforms(self._side)
        with seeded(self._seed, "augment", key.epoch, key.index):
            x = flip(to_tensor(random_crop(image)))
        return standardize(x), label
