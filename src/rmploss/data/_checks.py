"""What a split or a sample of a data set must be, told before a loss meets it."""

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rmploss.errors import DataError, Problem

LABELS = (torch.int64, torch.uint8)
"""The types of labels."""


def require_labels(split: Any, name: str, num_classes: int) -> None:
    """Raise `DataError` unless a split's labels are class numbers, one for each sample.

    On a GPU a label out of range would end the process without a message. Cheap: no sample is
    loaded.

    split: `Samples`, perhaps of somebody else.
    name: "train" or "test", of which data set.
    num_classes: K; labels are 0..K-1.
    """
    labels, where = getattr(split, "labels", None), f"labels of {name}"
    if not isinstance(labels, Tensor):
        what = f"a {type(labels).__name__}, not a tensor of class numbers"
        raise _bad(Problem(where, what, "torch.tensor(labels), int64 [N]"))
    if labels.dtype not in LABELS:
        raise _bad(Problem(where, f"{labels.dtype}, not class numbers", "labels.long()"))
    if labels.shape != (len(split),):
        what = f"shape {list(labels.shape)} for {len(split)} samples"
        raise _bad(Problem(where, what, f"class numbers [{len(split)}]"))
    if not labels.numel():
        raise _bad(Problem(where, "there are no samples", "a split that is not empty"))
    least, most = int(labels.min()), int(labels.max())
    if least < 0 or most >= num_classes:
        wrong = least if least < 0 else most
        first = int((labels == wrong).nonzero()[0])
        what = f"sample {first} has label {wrong}, of {num_classes} classes: 0..{num_classes - 1}"
        from_one = (least, most) == (1, num_classes)
        fix = "labels - 1: they count from 0" if from_one else f"num_classes = {most + 1}?"
        raise _bad(Problem(where, what, "" if least < 0 else fix))


def require_sample(sample: Any, label: int, where: str) -> tuple[Tensor, int]:
    """The input and the label of a sample; `DataError` for anything else.

    sample: what a data set returned.
    label: the split's label of it.
    where: which sample it is.
    """
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        what = f"a {type(sample).__name__}, not (x, label)"
        raise _bad(Problem(where, what, "return x, label"))
    x, given = sample
    if not isinstance(x, Tensor) or x.dtype != torch.float32:
        what = f"x is {x.dtype if isinstance(x, Tensor) else 'a ' + type(x).__name__}"
        raise _bad(Problem(where, f"{what}, not a float32 tensor", "x.float()"))
    if x.ndim not in (3, 4):
        raise _bad(Problem(where, f"x has shape {list(x.shape)}", "[C, H, W], or [T, C, H, W]"))
    try:
        number = operator.index(given)
    except TypeError:
        what = f"its label is {given!r}"
        raise _bad(Problem(where, what, "a whole number")) from None
    if number != label:
        what = f"its label is {number}, in the labels of the split {label}"
        raise _bad(Problem(where, what, "samples[i][1] == samples.labels[i]"))
    return x, number


def require_equal_shapes(inputs: Sequence[Tensor], names: Sequence[str]) -> None:
    """Raise `DataError` for inputs of a batch that cannot be stacked; names: of the samples."""
    for x, name in zip(inputs, names, strict=True):
        if x.shape != inputs[0].shape:
            what = f"x has shape {list(x.shape)}, that of {names[0]} {list(inputs[0].shape)}"
            raise _bad(Problem(name, what, "inputs of one shape"))


def _bad(problem: Problem) -> DataError:
    return DataError("a data set has labels or samples that no network can learn", [problem])
