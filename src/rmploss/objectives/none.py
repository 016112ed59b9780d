"""No regularizer: the vanilla network that the paper's ablation compares with (Table 1)."""

import torch
from torch import Tensor

from rmploss.stats import MembraneStats


class NoRegularizer:
    """Adds nothing to the loss, and asks for no statistics."""

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
