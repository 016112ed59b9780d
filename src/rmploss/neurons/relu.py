"""An analog layer in the place of neurons: the ANN that a hybrid training starts from.

y(t) = max(0, x(t))        no membrane, no memory, no spikes
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

from rmploss.ops import at_least_single, check_current
from rmploss.ops.moments import membrane_moments
from rmploss.stats import open_stats


class ReLU(nn.Module):
    """Rectified input current `[T, B, C, ...]`, every step by itself; dimensionless.

    Its potential, to look at, is x; so its quantization error is that of its negative part, and its
    firing rate the mean activation. channels: of no use here.
    """

    unregularized: ClassVar[str | None] = (
        "an analog layer has no membrane that a spike is compared with"
    )
    is_binary = False
    v_threshold = 1.0
    backend = "auto"
    carry_state = False

    def __init__(self, channels: int | None = None) -> None:
        super().__init__()
        self.layer_name, self.place = "", ""

    def forward(self, x: Tensor) -> Tensor:
        """max(0, x), of the shape and type of x."""
        check_current(x)
        y = x.relu()
        stats = open_stats()
        if stats is not None:
            with torch.no_grad():
                u, o = (at_least_single(v).flatten(0, 1) for v in (x, y))
                moments = membrane_moments(u, o, o, stats.spec)
            stats.record(self, moments, x.numel() // x.shape[2])
        return y

    def membrane(self, x: Tensor) -> Tensor:
        """x, without gradient: to look at."""
        return at_least_single(x.detach())
