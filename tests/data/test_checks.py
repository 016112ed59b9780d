"""Labels and samples of a data set are checked before a loss meets them."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rmploss.data import Key, batches
from rmploss.data._checks import require_labels
from rmploss.errors import DataError


@dataclass(eq=False)
class Split:
    """Four samples of somebody's data set; the third is `odd`."""

    odd: Any = None
    labels: Any = None

    def __post_init__(self) -> None:
        self.labels = torch.arange(4) if self.labels is None else self.labels

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Key) -> Any:
        usual = torch.ones(1, 2, 2), key.index
        return self.odd if key.index == 2 and self.odd is not None else usual


WRONG_LABELS: list[tuple[Any, str]] = [
    ([0, 1, 2, 3], r"a list, not a tensor.*torch.tensor\(labels\)"),
    (torch.arange(4.0), r"torch.float32, not class numbers.*labels.long\(\)"),
    (torch.arange(3), r"shape \[3\] for 4 samples"),
    (torch.eye(4).long(), r"shape \[4, 4\] for 4 samples"),
    (torch.tensor([1, 2, 3, 4]), r"sample 3 has label 4, of 4 classes: 0..3 .*labels - 1"),
    (torch.tensor([0, 7, 1, 2]), r"sample 1 has label 7, of 4 classes.*num_classes = 8"),
    (torch.tensor([0, 1, -1, 2]), r"sample 2 has label -1"),
]


@pytest.mark.parametrize(("labels", "message"), WRONG_LABELS, ids=range(len(WRONG_LABELS)))
def test_labels_that_are_no_class_numbers(labels: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        require_labels(Split(labels=labels), "train of mine", 4)


def test_labels_that_are_class_numbers() -> None:
    for labels in (torch.arange(4), torch.zeros(4, dtype=torch.uint8)):
        require_labels(Split(labels=labels), "train of mine", 4)


def test_a_split_without_labels_or_samples() -> None:
    with pytest.raises(DataError, match="a NoneType, not a tensor"):
        require_labels([1, 2], "train of mine", 4)
    empty = torch.utils.data.TensorDataset(torch.empty(0))
    empty.labels = torch.empty(0, dtype=torch.int64)  # pyright: ignore[reportAttributeAccessIssue]
    with pytest.raises(DataError, match="there are no samples"):
        require_labels(empty, "train of mine", 4)


X = torch.ones(1, 2, 2)
WRONG_SAMPLES: list[tuple[Any, str]] = [
    (X, r"a Tensor, not \(x, label\)"),
    ((X, 2, 3), r"a tuple, not \(x, label\)"),
    ((X.numpy(), 2), "x is a ndarray, not a float32 tensor"),
    ((X.byte(), 2), "x is torch.uint8, not a float32 tensor"),
    ((X[0], 2), r"x has shape \[2, 2\]"),
    ((X, 2.0), "its label is 2.0"),
    ((X, "cat"), "its label is 'cat'"),
    ((X, 3), "its label is 3, in the labels of the split 2"),
    ((torch.ones(1, 3, 3), 2), r"x has shape \[1, 3, 3\], that of sample 0 \[1, 2, 2\]"),
]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("odd", "message"), WRONG_SAMPLES, ids=range(len(WRONG_SAMPLES)))
def test_samples_that_no_network_takes(odd: Any, message: str, workers: int) -> None:
    with pytest.raises(DataError, match=rf"sample 2(?s:.*){message}"):
        load(Split(odd), workers)


@pytest.mark.parametrize("label", [2, torch.tensor(2), np.int64(2)])
def test_whole_numbers_of_any_kind_are_labels(label: Any) -> None:
    assert load(Split((X, label)), 0).tolist() == [0, 1, 2, 3]


def load(split: Any, workers: int) -> Tensor:
    """The labels of the one batch of an epoch."""
    given: Any = {"shuffle": False, "drop_last": False, "workers": workers}
    ((_, labels),) = batches(split, batch_size=4, epoch=0, seed=0, **given)
    return labels
