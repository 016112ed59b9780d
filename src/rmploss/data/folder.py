"""Images of yours in class folders: any number of classes, images of any size and kind.

`PATH/train/CLASS/*.jpg` and `PATH/test/CLASS/*.jpg` (or val), as torchvision's `ImageFolder` has
them, or `PATH/CLASS/*.jpg`, which is split by share (`_class_folders.py`). The names of the classes
are those of the folders, sorted; a run records them in its recipe, so that its network is known
without the data.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from PIL import Image
from torch import Tensor

from rmploss.data import _class_folders as class_folders
from rmploss.data import photographs
from rmploss.data._base import Key, ProgressCallback, Samples, Splits, ensure_complete
from rmploss.data._class_folders import Listed
from rmploss.data._in_memory import InMemory, Standardize, prepared
from rmploss.data._prepare_images import Augment, PrepareImages
from rmploss.data.images import MODES, SUFFIXES, in_mode, open_image, pixels, upright
from rmploss.data.photographs import MEAN, STD, Photographs, centered
from rmploss.errors import Problem, UserError

MEMORY_BYTES = 2 * 2**30
"""The largest set, in bytes, that is held in memory; a larger one is read at access."""
GRAY_MEAN, GRAY_STD = (0.449,), (0.226,)


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Images of yours in class folders, all scaled and cropped to one size.

    path: the folder; below the current one, or below the folder of the data sets.
    classes: the names of the class folders, which a run records; empty: those that are there.
    size: side of the inputs in pixels; the short side is scaled to it, the long one cropped.
    test_share: of the images of each class, where there is no folder of tests.
    color: "gray" inputs have one channel.
    augment: of training images: "standard" crop and flip, "crop" without the flip,
        "autoaugment+cutout" as on CIFAR, "random-crop" as on ImageNet, for large photographs.
    """

    path: str = ""
    classes: tuple[str, ...] = ()
    size: int = 32
    test_share: float = 0.2
    color: Literal["rgb", "gray"] = "rgb"
    augment: Augment | Literal["random-crop"] = "standard"

    name: ClassVar[str] = "folder"
    temporal: ClassVar[bool] = False

    def __post_init__(self) -> None:
        problems = []
        if self.size < 8:
            problems.append(Problem(f"data-set.size = {self.size}", "must be at least 8", "32"))
        if not 0 < self.test_share < 1:
            where = f"data-set.test_share = {self.test_share}"
            problems.append(Problem(where, "must lie in (0, 1)", "0.2"))
        if self.color == "gray" and self.augment in ("autoaugment+cutout", "random-crop"):
            where = f"data-set.augment = {self.augment}"
            problems.append(Problem(where, "is of images in color", "standard, or color=rgb"))
        if problems:
            raise UserError(f"cannot make data set {self.name!r}", problems)

    @property
    def num_classes(self) -> int:
        """How many classes there are; 2 as long as it is not known."""
        return len(self.classes) or 2

    @property
    def channels(self) -> int:
        """1 of gray images, else 3."""
        return 1 if self.color == "gray" else 3

    def shape(self, T: int) -> tuple[int, ...]:
        """`(3, size, size)`, or with one channel."""
        return (self.channels, self.size, self.size)

    def settled(self, root: Path | None) -> dict[str, Any]:
        """The options that follow from the files: where they are, and the classes."""
        if not self.path or self.missing(root):
            return {}
        path = class_folders.portable(self.path, root)
        return {"path": path, "classes": self.classes or self._found(root)}

    def missing(self, root: Path | None) -> list[Problem]:
        """No folder, no or empty classes, other classes than the recipe's; no image is read."""
        problems = class_folders.layout_problems(self.path, root, self.classes, SUFFIXES, "images")
        unfit = photographs.unfit() if self.augment == "random-crop" else None
        return [unfit, *problems] if unfit else problems

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits: uint8 in memory, or read at access."""
        ensure_complete(self, root)
        train, test = self._listed(root)
        if self.augment == "random-crop":
            make = partial(Photographs, side=self.size, read=self._image)
            return Splits(make(*train, seed=seed), make(*test, seed=None))
        total = len(train.files) + len(test.files)
        if total * self.channels * self.size**2 > MEMORY_BYTES:
            return Splits(
                AtAccess(train, self, self._prepare(), seed),
                AtAccess(test, self, self._prepare("none")),
            )
        files = [*train.files, *test.files]
        stored = torch.stack(class_folders.read_all(files, self.stored, progress, "images"))
        first, rest = stored[: len(train.files)], stored[len(train.files) :]
        return Splits(
            InMemory(first, torch.tensor(train.labels), self._prepare(), seed),
            InMemory(rest, torch.tensor(test.labels), self._prepare("none")),
        )

    def notes(self, root: Path | None) -> list[str]:
        """What is allowed and may not be meant: images that train and test, classes not tested."""
        return class_folders.notes(*self._listed(root), self.classes or self._found(root))

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

    def _found(self, root: Path | None) -> tuple[str, ...]:
        folder = class_folders.locate(self.path, root)
        splits = class_folders.split_folders(folder)
        return tuple(class_folders.visible_folders(splits[0] if splits else folder))

    def _listed(self, root: Path | None) -> tuple[Listed, Listed]:
        folder = class_folders.locate(self.path, root)
        classes: Sequence[str] = self.classes or self._found(root)
        return class_folders.listed(folder, classes, SUFFIXES, self.test_share)


class AtAccess(Samples):
    """One split, read at access; the inputs are those that it would have in memory.

    split: its files.
    data: the data set.
    prepare: from pixels to inputs.
    seed: of the augmentation.
    """

    def __init__(self, split: Listed, data: Folder, prepare: PrepareImages, seed: int = 0) -> None:
        self._files, self._data, self._prepare, self._seed = split.files, data, prepare, seed
        self._labels = torch.tensor(split.labels)

    @property
    def labels(self) -> Tensor:
        """All labels, int64 `[N]`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: Key, /) -> tuple[Tensor, int]:
        stored = self._data.stored(self._files[key.index]).unsqueeze(0)
        number = torch.tensor([key.index])
        one = InMemory(stored, self._labels[number], self._prepare, self._seed, ids=number)
        return one[Key(key.epoch, 0)]
