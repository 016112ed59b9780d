"""The digits bundled with scikit-learn: 1797 gray images of 8x8 pixels (Alpaydin & Kaynak 1998).

Nothing to download; an epoch takes a second on one core.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from rmploss.data._augment import crop
from rmploss.data._base import InMemory, ProgressCallback, Splits
from rmploss.data._loading import balanced
from rmploss.errors import Problem

# Of the pixels of the training split, in 0..1.
MEAN, STD = 0.3055, 0.3763
TEST = 360


@dataclass(frozen=True)
class Prepare:
    """Gray values 0..1 `[1, 8, 8]` -> mean 0 and variance 1, shifted by at most a pixel."""

    augment: bool

    def __call__(self, image: Tensor) -> Tensor:
        """The network's input for one image."""
        if self.augment:
            image = crop(image, pad=1)
        return (image - MEAN) / STD


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
            InMemory(train_images, train_labels, Prepare(self.augment), seed),
            InMemory(test_images, test_labels, Prepare(augment=False)),
        )


def load_splits() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """The training and the test split: gray values 0..1 `[N, 1, 8, 8]`, labels int64 `[N]`."""
    pixels, digits = load_digits(return_X_y=True)
    images = torch.from_numpy(pixels).float().view(-1, 1, 8, 8) / 16
    labels = torch.from_numpy(digits).long()
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    held_out[balanced(labels, TEST, "digits test")] = True
    return (images[~held_out], labels[~held_out]), (images[held_out], labels[held_out])
