"""The membrane margin of TGO (ICLR 2026): no membrane closer to its threshold than delta.

    C = mean of max(0, delta - |u - V_th|) over time, batch, channels and space        the paper

From membrane moments, its expectation under a normal distribution takes its place: tdBN gives it
to the input current of a channel, and so, nearly, to its membrane until training changes it
(recipes/methods/tgo.py says how far). With d = m - V_th; m, s: mean and standard
deviation of u per channel and step (over B, H, W and all ranks):

    v ~ N(d, s^2):  E max(0, delta - |v|) = s (F((d + delta)/s) - 2 F(d/s) + F((d - delta)/s))
    F(z) = z Phi(z) + phi(z), the integral of Phi

since max(0, delta - |v|) = [v + delta]_+ - 2 [v]_+ + [v - delta]_+, and E [v + c]_+ is
s F((d + c)/s).
The term is the mean over layers of their means over steps and channels. lambda(n) rises along a
cosine.

RECONSTRUCTED, from notes on the paper (arXiv 2602.20548): the expectation takes the place of the
mean over membranes; delta and the weight are ours; the paper's noisy neurons are not part of it.
"""

import math
from typing import Unpack

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem
from rmploss.objectives.regularizer import LayerOptions, MeanOverLayers
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import LayerMoments


class TGOLoss(MeanOverLayers):
    """weight times the expected lack of margin; dimensionless.

    delta: the margin, in the unit of the membrane.
    weight: amplitude of lambda(n).
    schedule, include, exclude: see `Regularizer`.

    Raises `UserError`.
    """

    @checked()
    def __init__(
        self,
        *,
        weight: float = 1.0,
        delta: float = 0.25,
        schedule: str = "rising_cosine",
        **layers: Unpack[LayerOptions],
    ) -> None:
        problems = []
        if not 0 < delta < float("inf"):
            problems.append(Problem(f"delta = {delta!r}", "must be positive", "0.25"))
        super().__init__(
            amplitude=("weight", weight, "1"),
            spec=MomentSpec(per_step=True),
            problems=problems,
            schedule=schedule,
            **layers,
        )
        self.delta = delta

    def of_layer(self, layer: LayerMoments) -> Tensor:
        """The mean over steps and channels of one layer."""
        # The term is even in d; where d <= 0 no F is large, and their difference loses nothing.
        distance, spread = -(layer.mean - layer.v_threshold).abs(), layer.deviation
        below, at, above = (distance + c for c in (-self.delta, 0.0, self.delta))
        lack = rectified(above, spread) - 2 * rectified(at, spread) + rectified(below, spread)
        return lack.mean()


def rectified(mean: Tensor, spread: Tensor) -> Tensor:
    """E [v]_+ = s F(m / s) = m Phi(m / s) + s phi(m / s) of v ~ N(m, s^2), element by element.

    mean, spread: m and s > 0, any one shape.
    """
    z = mean / spread
    density = (z.square() / -2).exp() / math.sqrt(2 * math.pi)
    return mean * torch.special.ndtr(z) + spread * density
