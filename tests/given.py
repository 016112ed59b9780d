"""Inputs of the tests: derived random numbers, always the same ones."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rmploss.randomness import generator


@dataclass
class Layer:
    """What a spiking layer tells of itself when it records."""

    layer_name: str
    v_threshold: float = 0.5
    unregularized: ClassVar[str | None] = None
    place: str = ""


def normal(*shape: int, name: str = "", seed: int = 0, mean: float = 0, std: float = 1) -> Tensor:
    """Normal numbers in float64; another name or seed gives other ones."""
    numbers = torch.randn(shape, generator=generator(seed, "test", name), dtype=torch.float64)
    return numbers * std + mean


def labels(count: int, classes: int, seed: int = 0) -> Tensor:
    """Class labels `[count]`."""
    return torch.randint(classes, (count,), generator=generator(seed, "test", "labels"))
