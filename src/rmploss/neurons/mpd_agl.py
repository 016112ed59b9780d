"""MPD-AGL (IJCAI 2025): the surrogate is as wide as the membrane's distribution, by tdBN's gain.

    phi'(v) = 1/k over |v| < k/2,    k = 2 sqrt(1 + decay^2) mean_c |gamma_c| V_th

gamma V_th: the gain of the norm in front (Eqs. 6-7), the standard deviation of the input current. A
membrane that was at rest before the last step has the deviation of two currents, one of them
times the decay; so the window reaches from one deviation below the threshold to one above.

From notes on the paper (arXiv 2505.11863). Two readings are ours: the paper has k = 2 mean gamma
V_th in the first step, and here all steps have the width of the later ones (3 % more, for the
decay 0.25), so that they run as one operation; and the width follows the gain from epoch to epoch,
not from step to step, so that no training step waits for a number.
"""

import math
from typing import Any, Unpack

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.entry import entry
from rmploss.functional import ADVICE
from rmploss.neurons.lif import LIF, MembraneOptions
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import Spikes
from rmploss.surrogate import Rectangle

NARROWEST = 1e-3
"""The smallest width, in units of V_th: a gain of 0 would leave no surrogate at all."""


class AdaptiveWidthLIF(LIF):
    """`LIF` with a rectangle whose width follows the gain of the norm in front of it.

    Buffers, all scalars: norm_gain is mean_c |gamma_c| alpha V_th in the last training step; width
    is k; width_at is the progress n / N at which k was taken (-1: never), so that a run that is
    resumed within an epoch keeps it.
    """

    norm_gain: Tensor
    width: Tensor
    width_at: Tensor

    @checked(**{**ADVICE, "surrogate": "none: it is a rectangle"})
    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.25,
        **lif: Unpack[MembraneOptions],
    ) -> None:
        super().__init__(channels, decay=decay, **lif)
        for name, value in (("norm_gain", self.v_threshold), ("width", 0.0), ("width_at", -1.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.width.fill_(self.width_of(self.v_threshold))
        self.surrogate = Rectangle(width=self.width_of(self.v_threshold))

    def width_of(self, norm_gain: float) -> float:
        """k of a mean gain |gamma| V_th, dimensionless."""
        deviation = math.sqrt(1 + self.decay**2) * norm_gain
        return 2 * max(deviation, NARROWEST * self.v_threshold)

    @entry
    def forward(
        self,
        x: Tensor,
        *,
        norm: TDBatchNorm2d | None = None,
        residual: Tensor | Spikes | None = None,
        repeats: int = 1,
        as_spikes: bool = False,
        dense: bool = True,
    ) -> Any:
        """As `LIF.forward`; in training the gain of the norm is remembered."""
        if self.training and isinstance(norm, TDBatchNorm2d):
            self.norm_gain.copy_(norm.gain.detach().abs().mean())
        return super().forward(
            x, norm=norm, residual=residual, repeats=repeats, as_spikes=as_spikes, dense=dense
        )

    def evolve(self, progress: float) -> None:
        """Take the width of the gain, once for each progress n / N."""
        if float(self.width_at) != progress:
            self.width.fill_(self.width_of(float(self.norm_gain)))
            self.width_at.fill_(progress)
        self.surrogate = Rectangle(width=float(self.width))
