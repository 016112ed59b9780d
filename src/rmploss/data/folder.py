"""Images of yours in class folders: any number of classes, images of any size and kind.

`PATH/train/CLASS/*.jpg` and `PATH/test/CLASS/*.jpg` (or val), as torchvision's `ImageFolder` has
them, or `PATH/CLASS/*.jpg`, which is split by share (`_class_folders.py`).
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image
from torch import Tensor

from rmploss.data import photographs
from rmploss.data._base import ProgressCallback, Splits, ensure_complete
from rmploss.data._in_memory import Standardize, prepared
from rmploss.data._own_folder import OwnFolder
from rmploss.data._prepare_images import Augment, PrepareImages
from rmploss.data.images import MODES, SUFFIXES, in_mode, open_image, pixels, upright
from rmploss.data.photographs import MEAN, STD, Photographs, centered
from rmploss.errors import Problem

GRAY_MEAN, GRAY_STD = (0.449,), (0.226,)


@dataclass(frozen=True, kw_only=True)
class Folder(OwnFolder):
    """Images of yours in class folders, all scaled and cropped to one size.

    path, classes, test_share: see `OwnFolder`.
    size: side of the inputs in pixels; the short side is scaled to it, the long one cropped.
    color: "gray" inputs have one channel.
    augment: of training images: "standard" crop and flip, "crop" without the flip,
        "autoaugment+cutout" as on CIFAR, "random-crop" as on ImageNet, for large photographs.
    """

    size: int = 32
    color: Literal["rgb", "gray"] = "rgb"
    augment: Augment | Literal["random-crop"] = "standard"

    name: ClassVar[str] = "folder"
    temporal: ClassVar[bool] = False
    kind: ClassVar[str] = "images"
    suffixes: ClassVar[frozenset[str]] = SUFFIXES

    def _problems(self) -> list[Problem]:
        problems = []
        if self.size < 8:
            problems.append(Problem(f"data-set.size = {self.size}", "must be at least 8", "32"))
        if self.color == "gray" and self.augment in ("autoaugment+cutout", "random-crop"):
            where = f"data-set.augment = {self.augment}"
            problems.append(Problem(where, "is of images in color", "standard, or color=rgb"))
        return problems

    @property
    def channels(self) -> int:
        """1 of gray images, else 3."""
        return 1 if self.color == "gray" else 3

    def shape(self, T: int) -> tuple[int, ...]:
        """`(3, size, size)`, or with one channel."""
        return (self.channels, self.size, self.size)

    def missing(self, root: Path | None) -> list[Problem]:
        """What is wrong with the folders, or with torchvision; no image is read."""
        unfit = photographs.unfit() if self.augment == "random-crop" else None
        return [*([unfit] if unfit else []), *self._missing(root)]

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits: uint8 in memory, or read at access."""
        ensure_complete(self, root)
        if self.augment == "random-crop":
            train, test = self._listed(root)
            make = partial(Photographs, side=self.size, read=self._image)
            return Splits(make(*train, seed=seed), make(*test, seed=None))
        return self._splits(
            root,
            self.stored,
            self.channels * self.size**2,
            (self._prepare(), self._prepare("none")),
            seed,
            progress,
        )

    def read(self, path: Path, T: int) -> Tensor:
        """An image file as the test split prepares it, float32 `[C, size, size]`."""
        if self.augment == "random-crop":
            return centered(self._image(path), self.size)
        return prepared(self._prepare("none"), self.stored(path))

    def stored(self, path: Path) -> Tensor:
        """The pixels of an image, uint8 `[C, size, size]`."""
        return pixels(self._image(path), self.channels, self.size)

    def _image(self, path: Path) -> Image.Image:
        return in_mode(upright(open_image(path)), MODES[self.channels])

    def _prepare(self, augment: Augment | None = None) -> PrepareImages:
        gray = self.color == "gray"
        mean, std = (GRAY_MEAN, GRAY_STD) if gray else (MEAN, STD)
        kind: Any = augment or self.augment
        return PrepareImages(kind, Standardize(mean, std), self.size)
