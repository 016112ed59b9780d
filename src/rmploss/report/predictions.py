"""Read predictions.json: the confusion matrix, and examples with their spikes."""

import base64
import json
import math
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss.analysis import Confusion, Example
from rmploss.engine.files import read_regular
from rmploss.errors import printable


@dataclass(frozen=True)
class ClassResult:
    """How one class fares.

    name: of the class.
    samples: of the test split.
    accuracy: in percent.
    rival: the class that its other samples are most often taken for; "": none is.
    """

    name: str
    samples: int
    accuracy: float
    rival: str


@dataclass(frozen=True)
class Predictions:
    """What a network predicts on the test split.

    names: of the classes.
    confusion: (class, predicted class, samples).
    examples: some samples.
    """

    names: tuple[str, ...]
    confusion: Confusion
    examples: tuple[Example, ...]

    def of_class(self, label: int) -> int:
        """The number of samples of a class."""
        return self._totals[label]

    @cached_property
    def _totals(self) -> dict[int, int]:
        totals: dict[int, int] = defaultdict(int)
        for label, _, count in self.confusion:
            totals[label] += count
        return totals

    def classes(self) -> list[ClassResult]:
        """The result of every class that has samples, in their order."""
        rows: dict[int, dict[int, int]] = defaultdict(dict)
        for label, guess, count in self.confusion:
            rows[label][guess] = count
        return [self._class(label, row) for label, row in sorted(rows.items())]

    def _class(self, label: int, row: dict[int, int]) -> ClassResult:
        right, samples = row.get(label, 0), sum(row.values())
        wrong = {guess: count for guess, count in row.items() if guess != label}
        rival = self.names[max(wrong, key=lambda guess: wrong[guess])] if wrong else ""
        return ClassResult(self.names[label], samples, 100 * right / samples, rival)


def read_predictions(path: Path) -> Predictions:
    """Read a predictions.json.

    Raises `OSError`, and `ValueError`, `KeyError` or `TypeError` for content that it cannot have.
    """
    stored = json.loads(read_regular(path))
    confusion = [tuple(map(_count, entry)) for entry in stored["confusion"]]
    if not confusion or any(len(entry) != 3 or entry[2] == 0 for entry in confusion):
        raise ValueError("a confusion matrix that is none")
    count = 1 + max(max(entry[:2]) for entry in confusion)
    names = [_text(name) for name in stored["classes"]]
    if names and len(names) < count:
        raise ValueError("fewer names than classes")
    if count > 1_000_000:
        raise ValueError("more than a million classes")
    names = names or [str(label) for label in range(count)]
    examples = tuple(_example(each, len(names)) for each in stored["examples"])
    return Predictions(tuple(names), [(a, b, n) for a, b, n in confusion], examples)


def _example(stored: dict[str, Any], classes: int) -> Example:
    probability = stored["probability"]
    if type(probability) is not float or not 0 <= probability <= 1:
        raise ValueError("a probability that is none")
    frames, spikes = _pixels(stored["frames"]), _pixels(stored["spikes"])
    if spikes.ndim != 3 or frames.ndim not in (3, 4) or frames.shape[3:] not in ((), (3,)):
        raise ValueError("pictures that are none")
    label, predicted = _count(stored["label"]), _count(stored["predicted"])
    if max(label, predicted) >= classes:
        raise ValueError("an example of no class")
    active = {_text(name): [float(x) for x in row] for name, row in stored["active"].items()}
    if any(len(row) != len(spikes) for row in active.values()):
        raise ValueError("layers of different numbers of steps")
    layer = _text(stored["layer"])
    return Example(label, predicted, probability, frames, layer, spikes, active)


def _pixels(stored: dict[str, Any]) -> Tensor:
    shape = [_count(size) for size in stored["shape"]]
    data = bytearray(base64.b64decode(stored["base64"], validate=True))
    if math.prod(shape) != len(data):
        raise ValueError("pixels that do not fit their shape")
    if not data:
        return torch.zeros(shape, dtype=torch.uint8)
    return torch.frombuffer(data, dtype=torch.uint8).reshape(shape)


def _count(value: object) -> int:
    if type(value) is not int or not 0 <= value < 1 << 62:
        raise ValueError("a number that is no count")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a name that is none")
    return printable(value)
