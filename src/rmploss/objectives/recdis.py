"""RecDis-SNN (Guo et al., CVPR 2022), reconstructed: three undesired shifts of the membrane.

    degeneration   [(m - V_th)^2 - s^2]_+        most values on one side of the threshold
    mismatch       [2a - |m - V_th| - s]_+^2     too narrow: most values within the surrogate
    saturation     [s - 4a]_+^2                  too wide: most values outside the surrogate

m, s: mean and standard deviation of u per channel (over T, B, H, W and all ranks); a: half-width of
the surrogate. The loss is the mean over channels and layers.

RECONSTRUCTED: the paper's formula is not public. The paper names these three shifts as Ding et al.
(CVPR 2019) do; this is their loss on binary activations, moved to V_th and scaled from their
half-width 1 to a. It need not reproduce any number of the RecDis-SNN paper.
"""

import math
from typing import Unpack

from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem
from rmploss.objectives.regularizer import MeanOverLayers, RegularizerOptions
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import LayerMoments


class RecDisLoss(MeanOverLayers):
    """weight times the sum of the three terms; dimensionless.

    v_threshold: V_th; None: the threshold of each layer.
    half_width: a; 1/2 for the rectangle and Eq. 5, other surrogates need theirs.
    weight: amplitude of lambda(n).
    schedule, include, exclude: see `Regularizer`.

    Raises `UserError`.
    """

    @checked()
    def __init__(
        self,
        *,
        weight: float = 1.0,
        v_threshold: float | None = None,
        half_width: float = 0.5,
        **options: Unpack[RegularizerOptions],
    ) -> None:
        problems = []
        if not 0 < half_width < float("inf"):
            problems.append(Problem(f"half_width = {half_width!r}", "must be positive", "0.5"))
        if v_threshold is not None and not math.isfinite(v_threshold):
            where = f"v_threshold = {v_threshold!r}"
            problems.append(Problem(where, "must be finite", "none: that of each layer"))
        super().__init__(
            amplitude=("weight", weight, "1 or 2"),
            spec=MomentSpec(),
            problems=problems,
            **options,
        )
        self.v_threshold, self.half_width = v_threshold, half_width

    def of_layer(self, layer: LayerMoments) -> Tensor:
        """The mean over channels of one layer."""
        centre = layer.v_threshold if self.v_threshold is None else self.v_threshold
        distance = (layer.mean - centre).abs()
        spread = layer.deviation
        degeneration = (distance.square() - layer.variance).clamp(min=0)
        mismatch = (2 * self.half_width - distance - spread).clamp(min=0).square()
        saturation = (spread - 4 * self.half_width).clamp(min=0).square()
        return (degeneration + mismatch + saturation).mean()
