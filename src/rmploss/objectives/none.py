"""No regularizer: the vanilla network of the paper's ablation (Table 1)."""

import torch
from torch import Tensor

from rmploss.stats import MembraneStats


class NoRegularizer:
    """A term that is zero and needs no statistics."""

    spec = None

    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """Zero."""
        return torch.zeros(())

    def weight(self, progress: float) -> float:
        """Zero."""
        return 0.0

    def value(self, stats: MembraneStats) -> Tensor:
        """Zero."""
        return torch.zeros(())
