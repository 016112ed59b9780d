"""A data set of a user's files in class folders: the part that images and recordings share.

The names of the classes are those of the folders, sorted; a run records them in its recipe, so that
its network is known without the data.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from rmploss.data import _class_folders as class_folders
from rmploss.data._base import Key, ProgressCallback, Samples, Splits
from rmploss.data._class_folders import Listed
from rmploss.data._in_memory import InMemory, Prepare
from rmploss.errors import Problem, UserError

MEMORY_BYTES = 2 * 2**30
"""The largest set, in bytes, that is held in memory; a larger one is read at access."""


@dataclass(frozen=True, kw_only=True)
class OwnFolder:
    """Files in class folders, see `_class_folders.py`.

    path: the folder; below the current one, or below the folder of the data sets.
    classes: the names of the class folders, which a run records; empty: those that are there.
    test_share: of the files of each class, where there is no folder of tests.
    """

    path: str = ""
    classes: tuple[str, ...] = ()
    test_share: float = 0.2

    name: ClassVar[str]
    kind: ClassVar[str]
    """The files, in the plural."""
    suffixes: ClassVar[Collection[str]]

    def __post_init__(self) -> None:
        problems = self._problems() + share_problems(self.test_share)
        if problems:
            raise UserError(f"cannot make data set {self.name!r}", problems)

    def _problems(self) -> list[Problem]:
        """Those of a subclass's own options."""
        return []

    @property
    def num_classes(self) -> int:
        """How many classes there are; 2 as long as it is not known."""
        return len(self.classes) or 2

    def settled(self, root: Path | None) -> dict[str, Any]:
        """The options that follow from the files: where they are, and the classes."""
        if not self.path or self._missing(root):
            return {}
        path = class_folders.portable(self.path, root)
        return {"path": path, "classes": self.classes or self._found(root)}

    def notes(self, root: Path | None) -> list[str]:
        """What is allowed and may not be meant: files that train and test, classes not tested."""
        return class_folders.notes(*self._listed(root), self.classes or self._found(root))

    def _missing(self, root: Path | None) -> list[Problem]:
        """No folder, no or empty classes, other classes than the recipe's; no file is opened."""
        return class_folders.layout_problems(
            self.path, root, self.classes, self.suffixes, self.kind
        )

    def _found(self, root: Path | None) -> tuple[str, ...]:
        folder = class_folders.locate(self.path, root)
        splits = class_folders.split_folders(folder)
        return tuple(class_folders.visible_folders(splits[0] if splits else folder))

    def _listed(self, root: Path | None) -> tuple[Listed, Listed]:
        folder = class_folders.locate(self.path, root)
        classes = self.classes or self._found(root)
        return class_folders.listed(folder, classes, self.suffixes, self.test_share)

    def _splits(
        self,
        root: Path | None,
        stored: Callable[[Path], Tensor],
        sample_bytes: int,
        prepare: tuple[Prepare, Prepare],
        seed: int,
        progress: ProgressCallback | None,
    ) -> Splits:
        """Both splits: in memory, or read at access.

        stored: from a file to uint8.
        sample_bytes: of one such tensor.
        prepare: for training and for tests.
        seed: of the augmentation.
        progress: called after every file that is read.
        """
        train, test = self._listed(root)
        files = [*train.files, *test.files]
        if len(files) * sample_bytes > MEMORY_BYTES:
            return Splits(
                AtAccess(train, stored, prepare[0], seed), AtAccess(test, stored, prepare[1])
            )
        everything = torch.stack(class_folders.read_all(files, stored, progress, self.kind))
        first, rest = everything[: len(train.files)], everything[len(train.files) :]
        return Splits(
            InMemory(first, torch.tensor(train.labels), prepare[0], seed),
            InMemory(rest, torch.tensor(test.labels), prepare[1]),
        )


def share_problems(share: float) -> list[Problem]:
    """What is wrong with the share of samples that test."""
    if 0 < share < 1:
        return []
    return [Problem(f"data-set.test_share = {share}", "must lie in (0, 1)", "0.2")]


class AtAccess(Samples):
    """One split, read at access; the inputs are those that it would have in memory.

    split: its files, or parts of files.
    stored: from one of them to uint8.
    prepare: from there to inputs.
    seed: of the augmentation.
    """

    def __init__(
        self,
        split: tuple[Sequence[Any], Sequence[int]],
        stored: Callable[[Any], Tensor],
        prepare: Prepare,
        seed: int = 0,
    ) -> None:
        self._files, labels = split
        self._stored, self.prepare, self._seed = stored, prepare, seed
        self._labels = torch.tensor(labels)

    @property
    def labels(self) -> Tensor:
        """All labels, int64 `[N]`."""
        return self._labels

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, key: Key, /) -> tuple[Tensor, int]:
        stored = self._stored(self._files[key.index]).unsqueeze(0)
        number = torch.tensor([key.index])
        one = InMemory(stored, self._labels[number], self.prepare, self._seed, ids=number)
        return one[Key(key.epoch, 0)]

    def content(self, index: int) -> bytes:
        """The bytes that the sample would have in memory."""
        return self._stored(self._files[index]).contiguous().numpy().tobytes()
