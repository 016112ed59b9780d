"""RecDis-SNN (Guo et al., CVPR 2022), reconstructed: three undesired shifts of the membrane.

    degeneration   [(m - V_th)^2 - s^2]_+        all values on one side of the threshold
    mismatch       [2a - |m - V_th| - s]_+^2     too narrow: all inside the surrogate's window
    saturation     [s - 4a]_+^2                  too wide: most outside of it

m and s are mean and standard deviation of u per channel (over T, B, H, W and all ranks), a half the
width of the surrogate; the loss is the mean over channels and layers.

RECONSTRUCTED: the paper's formula is not public. It names these three shifts in the words of Ding
et al. (CVPR 2019), whose loss on binary activations this is, moved to V_th and scaled from their
half-width 1 to a. No number of the RecDis-SNN paper can be expected of it.
"""

import torch
from torch import Tensor

from rmploss.errors import Problem
from rmploss.objectives.regularizer import Regularizer
from rmploss.ops.lif.moments import MomentSpec
from rmploss.stats import LayerMoments

SMALLEST = 1e-12
"""Of a variance: the slope of its root is finite from here on."""


class RecDisLoss(Regularizer):
    """weight times the three terms; dimensionless.

    v_threshold: None for that of each layer; half_width: a, of the surrogate: 1/2 for the rectangle
    and for Eq. 5, to be said by hand where the neurons have another one.
    """

    def __init__(
        self,
        *,
        weight: float = 1.0,
        v_threshold: float | None = None,
        half_width: float = 0.5,
        schedule: str = "constant",
        include: tuple[str, ...] = ("*",),
        exclude: tuple[str, ...] = (),
    ) -> None:
        problems = []
        if not 0 < half_width < float("inf"):
            problems.append(Problem(f"half_width = {half_width!r}", "must be positive", "0.5"))
        super().__init__(
            amplitude=("weight", weight, "1 or 2"),
            schedule=schedule,
            spec=MomentSpec(),
            include=include,
            exclude=exclude,
            problems=problems,
        )
        self.v_threshold, self.half_width = v_threshold, half_width

    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """The mean of the layers' means over channels."""
        return torch.stack([self._of_layer(layer.of_all_ranks()) for layer in layers]).mean()

    def _of_layer(self, layer: LayerMoments) -> Tensor:
        centre = layer.v_threshold if self.v_threshold is None else self.v_threshold
        distance = (layer.mean - centre).abs()
        variance = layer.variance.clamp(min=SMALLEST)
        spread = variance.sqrt()
        degeneration = (distance.square() - variance).clamp(min=0)
        mismatch = (2 * self.half_width - distance - spread).clamp(min=0).square()
        saturation = (spread - 4 * self.half_width).clamp(min=0).square()
        return (degeneration + mismatch + saturation).mean()
