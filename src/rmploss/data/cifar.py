"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009): 50,000 + 10,000 color images of 32x32 pixels.

Training images: crop (4 pixels of padding), flip, AutoAugment, Cutout 16x16, normalize; test images
are only normalized (paper, section 5, "Preprocessing"). The files are the published Python pickles:
each is read once, its MD5 compared with the published one, and only then decoded.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from rmploss.data._autoaugment import Reading
from rmploss.data._base import (
    ProgressCallback,
    Splits,
    data_root,
    ensure_complete,
    missing_folder,
)
from rmploss.data._in_memory import InMemory, Standardize, prepared
from rmploss.data._prepare_images import Augment, PrepareImages
from rmploss.data._unpickle import unpickle
from rmploss.data.images import open_image, pixels
from rmploss.errors import DataError, Problem

SIDE = 32


@dataclass(frozen=True, kw_only=True)
class _CIFAR:
    """The base of both sets; they differ in files, key of the labels, classes and constants.

    augment: of training images; "autoaugment+cutout" is the paper's, "standard" crop and flip,
        "crop" crop alone.
    policy: whose AutoAugment: "torchvision", or "family", the port in the authors' family of code.
    """

    augment: Augment = "autoaugment+cutout"
    policy: Reading = "torchvision"

    name: ClassVar[str]
    num_classes: ClassVar[int]
    classes: ClassVar[tuple[str, ...]]
    temporal: ClassVar[bool] = False
    folder: ClassVar[str]
    train_files: ClassVar[Mapping[str, str]]
    test_files: ClassVar[Mapping[str, str]]
    label_key: ClassVar[bytes]
    mean: ClassVar[tuple[float, float, float]]
    std: ClassVar[tuple[float, float, float]]

    def shape(self, T: int) -> tuple[int, ...]:
        """`(3, 32, 32)`."""
        return (3, 32, 32)

    def missing(self, root: Path | None) -> list[Problem]:
        """The absent files; `open` checks their content."""
        folder = data_root(root) / self.folder
        fix = f"rmploss data fetch {self.name} --data-dir {folder.parent}"
        if not folder.is_dir():
            return [missing_folder(folder, fix)]
        return [
            Problem(str(folder / file), "no such file", fix)
            for file in (*self.train_files, *self.test_files)
            if not (folder / file).is_file()
        ]

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits, uint8 in memory. Raises `DataError` for an absent or altered file."""
        ensure_complete(self, root)
        folder = data_root(root) / self.folder
        content = _read_verified(folder, {**self.train_files, **self.test_files})
        return Splits(
            InMemory(*self._decode(folder, content, self.train_files), self._prepare(), seed),
            InMemory(*self._decode(folder, content, self.test_files), self._prepare("none")),
        )

    def read(self, path: Path, T: int) -> Tensor:
        """An image file as the test split prepares it, float32 `[3, 32, 32]`."""
        return prepared(self._prepare("none"), pixels(open_image(path), 3, SIDE))

    def _decode(
        self, folder: Path, content: Mapping[str, bytes], files: Mapping[str, str]
    ) -> tuple[Tensor, Tensor]:
        """Images uint8 `[N, 3, 32, 32]` and labels int64 `[N]`."""
        parts = [unpickle(content[file], str(folder / file)) for file in files]
        images = np.concatenate([part[b"data"] for part in parts]).reshape(-1, 3, 32, 32)
        labels = [label for part in parts for label in part[self.label_key]]
        return torch.from_numpy(images), torch.tensor(labels)

    def _prepare(self, augment: Augment | None = None) -> PrepareImages:
        standardize = Standardize(self.mean, self.std)
        return PrepareImages(augment or self.augment, standardize, policy=self.policy)


def _read_verified(folder: Path, checksums: Mapping[str, str]) -> dict[str, bytes]:
    """The content of all files. Raises `DataError` if an MD5 is not the published one."""
    content = {file: (folder / file).read_bytes() for file in checksums}
    problems = []
    for file, expected in checksums.items():
        actual = hashlib.md5(content[file], usedforsecurity=False).hexdigest()
        if actual != expected:
            what = f"MD5 is {actual}, published is {expected} ({len(content[file])} bytes here)"
            problems.append(Problem(str(folder / file), what, f"remove {folder}, then fetch again"))
    if problems:
        raise DataError("damaged or altered files; none of them was decoded", problems)
    return content


@dataclass(frozen=True, kw_only=True)
class CIFAR10(_CIFAR):
    """CIFAR-10: ten classes."""

    name = "cifar10"
    num_classes = 10
    classes = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    folder = "cifar-10-batches-py"
    train_files = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_files = {"test_batch": "40351d587109b95175f43aff81a1287e"}
    label_key = b"labels"
    mean = (0.4914, 0.4822, 0.4465)
    std = (0.2023, 0.1994, 0.2010)


@dataclass(frozen=True, kw_only=True)
class CIFAR100(_CIFAR):
    """CIFAR-100: a hundred classes (the "fine" labels), in alphabetical order."""

    name = "cifar100"
    num_classes = 100
    classes = (
        "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle",
        "bottle", "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle",
        "caterpillar", "cattle", "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch",
        "crab", "crocodile", "cup", "dinosaur", "dolphin", "elephant", "flatfish", "forest", "fox",
        "girl", "hamster", "house", "kangaroo", "keyboard", "lamp", "lawn_mower", "leopard", "lion",
        "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain", "mouse", "mushroom",
        "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
        "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road",
        "rocket", "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake",
        "spider", "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank",
        "telephone", "television", "tiger", "tractor", "train", "trout", "tulip", "turtle",
        "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
    )  # fmt: skip
    folder = "cifar-100-python"
    train_files = {"train": "16019d7e3df5f24257cddd939b257f8d"}
    test_files = {"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"}
    label_key = b"fine_labels"
    mean = (0.5071, 0.4867, 0.4408)
    std = (0.2675, 0.2565, 0.2761)
