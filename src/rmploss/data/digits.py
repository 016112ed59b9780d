"""The digits bundled with scikit-learn: 1797 gray images of 8x8 pixels (Alpaydin & Kaynak 1998).

Nothing to download; an epoch takes a second on one core.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from rmploss.data._augment import CROP_DRAWS, crop
from rmploss.data._base import ProgressCallback, Splits
from rmploss.data._in_memory import InMemory, Prepare, Standardize, prepared
from rmploss.data._loading import balanced
from rmploss.data.images import open_image, pixels
from rmploss.errors import Problem

# Of the pixels of the training split, in 0..1.
MEAN, STD = 0.3055, 0.3763
TEST = 360
WHITE = 16


class PrepareDigits(Prepare):
    """Gray values 0..16 `[B, 1, 8, 8]` -> mean 0 and variance 1, shifted by at most a pixel.

    augment: shift.
    """

    def __init__(self, augment: bool) -> None:
        super().__init__()
        self.draws = CROP_DRAWS * augment
        self.standardize = Standardize([MEAN], [STD], white=WHITE)

    def forward(self, images: Tensor, words: Tensor) -> Tensor:
        """The network's inputs."""
        return self.standardize(crop(images, pad=1, words=words) if self.draws else images)


@dataclass(frozen=True, kw_only=True)
class Digits:
    """1437 training and 360 test images; the split is fixed and tests on 36 of each digit.

    augment: shift each training image by up to one pixel, along H and along W.
    """

    augment: bool = True

    name: ClassVar[str] = "digits"
    num_classes: ClassVar[int] = 10
    classes: ClassVar[tuple[str, ...]] = tuple("0123456789")
    temporal: ClassVar[bool] = False

    def shape(self, T: int) -> tuple[int, ...]:
        """`(1, 8, 8)`."""
        return (1, 8, 8)

    def missing(self, root: Path | None) -> list[Problem]:
        """Nothing: scikit-learn brings the images."""
        return []

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits."""
        (train_images, train_labels), (test_images, test_labels) = load_splits()
        return Splits(
            InMemory(_stored(train_images), train_labels, PrepareDigits(self.augment), seed),
            InMemory(_stored(test_images), test_labels, PrepareDigits(augment=False)),
        )

    def read(self, path: Path, T: int) -> Tensor:
        """An image file as the test split prepares it, float32 `[1, 8, 8]`; white is 1."""
        return prepared(PrepareDigits(augment=False), _stored(read_gray(path)))


def read_gray(path: Path) -> Tensor:
    """An image file, white on black, as gray values 0..1 in steps of 1/16, `[1, 8, 8]`."""
    gray = pixels(open_image(path), 1, 8).float() / 255
    return (gray * WHITE).round() / WHITE


def load_splits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The training and the test split: gray values 0..1 `[N, 1, 8, 8]`, labels int64 `[N]`."""
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / WHITE
    labels = torch.from_numpy(digits).long()
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[balanced(labels, TEST, "digits test")] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])


def _stored(images: Tensor) -> Tensor:
    """Gray values 0..1 as whole numbers 0..16."""
    return (images * WHITE).to(torch.uint8)
