"""ImageNet (ILSVRC 2012): 1,281,167 + 50,000 photographs of 1000 classes, in class folders.

Training images: a random crop of random size scaled to 224x224, flip; test images: short side 256,
center crop 224x224; both normalized (paper, section 5, "Preprocessing"). The layout is that of
torchvision's `ImageFolder`: `imagenet/{train,val}/<wnid>/*.JPEG`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from rmploss.data._base import (
    Key,
    ProgressCallback,
    Splits,
    data_root,
    ensure_complete,
    missing_folder,
)
from rmploss.data._in_memory import Standardize
from rmploss.errors import DataError, Problem
from rmploss.randomness import seeded

SUFFIXES = {".jpeg", ".jpg", ".png"}
STEPS = (
    "sign in at image-net.org, get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and unpack "
    "them as imagenet/{train,val}/<wnid>/*.JPEG"
)
SORT_VAL = "sort them into class folders (valprep.sh of github.com/soumith/imagenetloader.torch)"

_standardize = Standardize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class _Transforms(NamedTuple):
    """Those of torchvision."""

    random_crop: Callable[[Image.Image], Image.Image]
    center_crop: Callable[[Image.Image], Image.Image]
    flip: Callable[[Tensor], Tensor]
    to_tensor: Callable[[Image.Image], Tensor]


@cache
def _transforms() -> _Transforms:
    # Not on import: a torchvision that was built for another torch cannot be imported.
    from torchvision.transforms import v2

    return _Transforms(
        random_crop=v2.RandomResizedCrop(224, antialias=True),
        center_crop=v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)]),
        flip=v2.RandomHorizontalFlip(),
        to_tensor=v2.functional.pil_to_tensor,
    )


@cache
def _unfit() -> Problem | None:
    """Why torchvision cannot be used; the first error counts, a second import raises another."""
    try:
        _transforms()
    except (ImportError, RuntimeError, AttributeError, OSError) as error:
        reason = str(error).strip().partition("\n")[0]
        what = f"does not fit torch {version('torch')}: {reason}"
        fix = "pip install --upgrade torch torchvision, both from one index"
        return Problem("torchvision", what, fix)
    return None


@dataclass(frozen=True, kw_only=True)
class ImageNet:
    """Images, read at access.

    augment: random crop and flip of training images.
    """

    augment: bool = True

    name: ClassVar[str] = "imagenet"
    num_classes: ClassVar[int] = 1000
    classes: ClassVar[tuple[str, ...]] = ()  # the names of the folders: the sorted wnids
    temporal: ClassVar[bool] = False

    def shape(self, T: int) -> tuple[int, ...]:
        """`(3, 224, 224)`."""
        return (3, 224, 224)

    def missing(self, root: Path | None) -> list[Problem]:
        """Missing folders, odd class folders, a torchvision that does not fit; no image is read."""
        problems, wnids = [], []
        if unfit := _unfit():
            problems.append(unfit)
        for folder in _folders(root):
            wnids.append(_wnids(folder))
            if not folder.is_dir():
                problems.append(missing_folder(folder, STEPS))
            elif not wnids[-1] and any(map(_is_image, folder.iterdir())):
                what = "all images are directly in this folder, so their classes are not known"
                problems.append(Problem(str(folder), what, SORT_VAL))
            elif len(wnids[-1]) != self.num_classes:
                what = f"{len(wnids[-1])} class folders, not {self.num_classes}"
                problems.append(Problem(str(folder), what, STEPS))
        if not problems and wnids[0] != wnids[1]:
            alone = sorted(set(wnids[0]) ^ set(wnids[1]))
            what = f"train and val differ in {len(alone)} class folders, first {alone[0]}"
            problems.append(Problem(str(_folders(root)[0].parent), what, STEPS))
        return problems

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits; only the file names are kept in memory."""
        ensure_complete(self, root)
        train, val = _folders(root)
        return Splits(Images(train, seed if self.augment else None), Images(val, None))

    def read(self, path: Path, T: int) -> Tensor:
        """An image file as the test split prepares it, float32 `[3, 224, 224]`."""
        return _centered(_read(path))


class Images:
    """One split: the images of each class folder.

    folder: of the split.
    seed: of the augmentation; None: no augmentation.
    """

    def __init__(self, folder: Path, seed: int | None) -> None:
        self._seed = seed
        self._files: list[Path] = []
        labels = []
        for label, wnid in enumerate(_wnids(folder)):
            files = sorted(filter(_is_image, (folder / wnid).iterdir()))
            if not files:
                raise DataError("an empty class", [Problem(str(folder / wnid), "no images", STEPS)])
            self._files += files
            labels += [label] * len(files)
        self.labels: Tensor = torch.tensor(labels)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        image = _read(self._files[key.index])
        random_crop, _, flip, to_tensor = _transforms()
        if self._seed is None:
            return _centered(image), int(self.labels[key.index])
        with seeded(self._seed, "augment", key.epoch, key.index):
            x = flip(to_tensor(random_crop(image)))
        return _standardize(x), int(self.labels[key.index])


def _centered(image: Image.Image) -> Tensor:
    """A photograph as a test image: short side 256, center crop, normalized."""
    transforms = _transforms()
    return _standardize(transforms.to_tensor(transforms.center_crop(image)))


def _read(path: Path) -> Image.Image:
    """The photograph in RGB (a few are gray or CMYK)."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError) as error:
        problem = Problem(str(path), str(error), "put the original file there")
        raise DataError("an image cannot be read", [problem]) from error


def _folders(root: Path | None) -> tuple[Path, Path]:
    folder = data_root(root) / "imagenet"
    return folder / "train", folder / "val"


def _wnids(folder: Path) -> list[str]:
    """The class folders, sorted: a label is an index into this list."""
    if not folder.is_dir():
        return []
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES
