"""Inputs of the tests: reproducible random numbers."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rmploss.randomness import generator


@dataclass
class Layer:
    """The attributes that a spiking layer records with its moments."""

    layer_name: str
    v_threshold: float = 0.5
    unregularized: ClassVar[str | None] = None
    place: str = ""


def normal(*shape: int, name: str = "", seed: int = 0, mean: float = 0, std: float = 1) -> Tensor:
    """Normal numbers in float64, derived from name and seed."""
    numbers = torch.randn(shape, generator=generator(seed, "test", name), dtype=torch.float64)
    return numbers * std + mean


def labels(count: int, classes: int, seed: int = 0) -> Tensor:
    """Class labels `[count]`."""
    return torch.randint(classes, (count,), generator=generator(seed, "test", "labels"))
