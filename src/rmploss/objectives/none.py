"""No regularizer: the vanilla network that the paper's ablation compares with (Table 1)."""

import torch
from torch import Tensor

from rmploss.ops.moments import MomentSpec
from rmploss.stats import MembraneStats


class NoRegularizer:
    """Adds nothing to the loss. p: exponent of the quantization error that is still measured."""

    def __init__(self, *, p: float = 2.0) -> None:
        self.spec = MomentSpec(p=p, differentiable=False)

    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """Zero."""
        return torch.zeros(())

    def weight(self, progress: float) -> float:
        """Zero."""
        return 0.0

    def value(self, stats: MembraneStats) -> Tensor:
        """Zero."""
        return torch.zeros(())
