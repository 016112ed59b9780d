"""ImageNet (ILSVRC 2012): 1,281,167 + 50,000 photographs of 1000 classes, in class folders.

Training images: a random crop of random size scaled to 224x224, flip; test images: short side 256,
center crop 224x224; both normalized (paper, section 5, "Preprocessing"). The layout is that of
torchvision's `ImageFolder`: `imagenet/{train,val}/<wnid>/*.JPEG`.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image
from torch import Tensor

from rmploss.data import photographs
from rmploss.data._base import (
    ProgressCallback,
    Splits,
    data_root,
    ensure_complete,
    missing_folder,
)
from rmploss.data._class_folders import Listed, all_of, visible_folders
from rmploss.data.images import SUFFIXES, is_image, open_image
from rmploss.data.photographs import Photographs, centered
from rmploss.errors import DataError, Problem

SIDE = 224
STEPS = (
    "sign in at image-net.org, get ILSVRC2012_img_train.tar and ILSVRC2012_img_val.tar, and unpack "
    "them as imagenet/{train,val}/<wnid>/*.JPEG"
)
SORT_VAL = "sort them into class folders (valprep.sh of github.com/soumith/imagenetloader.torch)"


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
        return (3, SIDE, SIDE)

    def missing(self, root: Path | None) -> list[Problem]:
        """Missing folders, odd class folders, a torchvision that does not fit; no image is read."""
        problems, wnids = [], []
        if unfit := photographs.unfit():
            problems.append(unfit)
        for folder in _folders(root):
            wnids.append(visible_folders(folder))
            if not folder.is_dir():
                problems.append(missing_folder(folder, STEPS))
            elif not wnids[-1] and any(map(is_image, folder.iterdir())):
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
        train, val = map(_listed, _folders(root))
        return Splits(
            Photographs(*train, side=SIDE, read=_read, seed=seed if self.augment else None),
            Photographs(*val, side=SIDE, read=_read, seed=None),
        )

    def read(self, path: Path, T: int) -> Tensor:
        """An image file as the test split prepares it, float32 `[3, 224, 224]`."""
        return centered(_read(path), SIDE)


def _listed(folder: Path) -> Listed:
    """The images of a split. Raises `DataError` for a class without images."""
    wnids = visible_folders(folder)
    found = all_of(folder, wnids, SUFFIXES)
    empty = sorted({*range(len(wnids))} - {*found.labels})
    if empty:
        problems = [Problem(str(folder / wnids[label]), "no images", STEPS) for label in empty]
        raise DataError("an empty class", problems)
    return found


def _read(path: Path) -> Image.Image:
    """The photograph in RGB (a few are gray or CMYK)."""
    return open_image(path).convert("RGB")


def _folders(root: Path | None) -> tuple[Path, Path]:
    folder = data_root(root) / "imagenet"
    return folder / "train", folder / "val"
