"""Inputs of the tests: derived random numbers, always the same ones."""

import torch
from torch import Tensor

from rmploss.randomness import generator


def normal(*shape: int, name: str = "", seed: int = 0, mean: float = 0, std: float = 1) -> Tensor:
    """Normal numbers in float64; another name or seed gives other ones."""
    numbers = torch.randn(shape, generator=generator(seed, "test", name), dtype=torch.float64)
    return numbers * std + mean


def labels(count: int, classes: int, seed: int = 0) -> Tensor:
    """Class labels `[count]`."""
    return torch.randint(classes, (count,), generator=generator(seed, "test", "labels"))
