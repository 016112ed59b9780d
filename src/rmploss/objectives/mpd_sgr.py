"""MPD-SGR (AAAI 2026): the share of membranes inside the window of the surrogate.

    L = mean over layers, steps, channels of Phi((V_th + a - m) / s) - Phi((V_th - a - m) / s)

m, s: mean and standard deviation of u per channel and step (over B, H, W and all ranks), s at least
a / 100; a: half-width of the surrogate; Phi: the distribution function of the normal distribution.
tdBN makes the input current of a channel normal, and so, nearly, its membrane until training
changes it: the term is then the probability that the surrogate has a slope. Fewer membranes near
the threshold make the network less sensitive to small changes of its input, which the paper
measures by adversarial attacks.

From notes on the paper (arXiv 2511.12199), which write m for the distance to the threshold. The
weight is ours.
"""

from typing import Unpack

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem
from rmploss.objectives.regularizer import MeanOverLayers, RegularizerOptions
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import LayerMoments

NARROWEST = 0.01
"""The smallest deviation, as a share of a. At an edge of the window the share has the slope 1/s,
and a silent channel rests at one with s = 0 where V_th = a."""


class MPDSGRLoss(MeanOverLayers):
    """weight times the share of membranes inside the window; dimensionless.

    half_width: a; 1/2 for Eq. 5 and the rectangle. Other surrogates need theirs, which
        `Surrogate.half_width` has (the triangle's is 1): moments do not tell the surrogate.
    weight: amplitude of lambda(n).
    schedule, include, exclude: see `Regularizer`.

    Raises `UserError`.
    """

    @checked()
    def __init__(
        self,
        *,
        weight: float = 0.1,
        half_width: float = 0.5,
        **options: Unpack[RegularizerOptions],
    ) -> None:
        problems = []
        if not 0 < half_width < float("inf"):
            problems.append(Problem(f"half_width = {half_width!r}", "must be positive", "0.5"))
        super().__init__(
            amplitude=("weight", weight, "0.1"),
            spec=MomentSpec(per_step=True),
            problems=problems,
            **options,
        )
        self.half_width = half_width

    def of_layer(self, layer: LayerMoments) -> Tensor:
        """The mean over steps and channels of one layer."""
        distance = layer.mean - layer.v_threshold
        spread = layer.deviation.clamp(min=NARROWEST * self.half_width)
        upper, lower = (self.half_width - distance) / spread, (self.half_width + distance) / spread
        # Phi(upper) - Phi(-lower), from the tail in which both are small: 1 - 1 would lose them.
        near = torch.special.ndtr(torch.minimum(upper, lower))
        far = torch.special.ndtr(-torch.maximum(upper, lower))
        return (near - far).mean()
