"""MPD-AGL (IJCAI 2025): the surrogate is as wide as the membrane's distribution, by tdBN's gain.

    phi'(v) = 1/k over |v| < k/2,    k = 2 sqrt(1 + decay^2) mean_c |gamma_c| V_th

gamma V_th: the gain of the norm in front (Eqs. 6-7), the standard deviation of the input current. A
membrane that was at rest before the last step has the deviation of two currents, one of them
times the decay; so the window reaches from one deviation below the threshold to one above, where no
shortcut adds to the current. k does not know of a shortcut.

From notes on the paper (arXiv 2505.11863). Two readings are ours: the paper has k = 2 mean gamma
V_th in the first step, and here all steps have the width of the later ones (3 % more, for the
decay 0.25), so that they run as one operation; and the width follows the gain from epoch to epoch,
not from step to step, so that no training step waits for a number.
"""

import math
from typing import Unpack

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.lif import LIF, MembraneOptions
from rmploss.norm import TDBatchNorm2d
from rmploss.surrogate import Rectangle

NARROWEST = 1e-3
"""The smallest width, in units of V_th: a gain of 0 would leave no surrogate at all."""


class AdaptiveWidthLIF(LIF):
    """`LIF` with a rectangle whose width follows the gain of the norm in front of it.

    In the first epoch the width is that of a new norm, later that of the step before the epoch.

    channels, decay, others: of `LIF`; the surrogate is the rectangle.

    Raises `UserError` for values out of range.

    Buffers, all scalars: norm_gain is mean_c |gamma_c| alpha V_th in the last training step; width
    is k; width_at is the progress n / N at which k was taken (-1: never), so that a run that is
    resumed within an epoch keeps it; met is whether there was such a step.
    """

    norm_gain: Tensor
    width: Tensor
    width_at: Tensor
    met: Tensor

    @checked(**{**ADVICE, "surrogate": "none: it is a rectangle"})
    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.25,
        **lif: Unpack[MembraneOptions],
    ) -> None:
        super().__init__(channels, decay=decay, **lif)
        width = self.width_of(self.v_threshold)
        for name, value in (("norm_gain", self.v_threshold), ("width", width), ("width_at", -1.0)):
            self.register_buffer(name, torch.tensor(value, dtype=torch.float64))
        self.register_buffer("met", torch.tensor(False))
        self.surrogate = Rectangle(width=width)
        self._first = True

    def width_of(self, norm_gain: float) -> float:
        """k of a mean gain |gamma| V_th, dimensionless."""
        deviation = math.sqrt(1 + self.decay**2) * norm_gain
        return 2 * max(deviation, NARROWEST * self.v_threshold)

    def meet(self, norm: TDBatchNorm2d) -> None:
        """Remember the gain of the norm, in training."""
        if not self.training:
            return
        self.norm_gain.copy_(norm.gain.detach().abs().mean())
        self.met.fill_(True)
        if self._first:
            self._take(norm.first_gain)

    def evolve(self, progress: float) -> None:
        """Take the width of the gain, once for each progress n / N.

        Raises `UserError` if no norm has been in front of the neurons for an epoch.
        """
        met = bool(self.met)
        if float(self.width_at) != progress:
            if met:
                self._take(float(self.norm_gain))
            elif float(self.width_at) >= 0:
                what = "met no TDBatchNorm2d in an epoch of training: its width is that of a gain"
                fix = "norm=tdbn, without hooks on neurons; or neuron=lif"
                where = self.layer_name or type(self).__name__
                raise UserError("nothing to follow", [Problem(where, what, fix)])
            self.width_at.fill_(progress)
        self._first = not met
        self.surrogate = Rectangle(width=float(self.width))

    def _take(self, norm_gain: float) -> None:
        self.width.fill_(self.width_of(norm_gain))
        self.surrogate = Rectangle(width=self.width_of(norm_gain))
        self._first = False
