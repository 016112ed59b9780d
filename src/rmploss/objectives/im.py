"""IM-Loss (Guo et al., NeurIPS 2022): centre the membranes on the threshold.

A spike that is fired with probability 1/2 has the largest entropy; the loss pulls the mean of the
membrane to V_th. Three published versions disagree (u: potential before the reset, m: its mean):

    paper        sum over layers of (m_l - V_th)^2                              weight 2
    supplement   mean over layers and channels of (m_lc - V_th)^2               weight 2
    released     mean over layers of (m_l - target)^2, target 0.5 / T; m_l is of the input current
                 behind a shortcut, of the *spikes* elsewhere; first and last layer left out
                                                                                weight 0.005

The paper's text could not be read: its line is from a summary. All leave out the inner neurons of
residual blocks.
"""

from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.objectives.regularizer import Regularizer
from rmploss.ops.moments import MEMBRANE, SPIKES, MomentSpec
from rmploss.stats import LayerMoments

BEHIND_A_SHORTCUT = "*.lif2"
"""The neurons of a block that see the sum of two currents."""


class IMLoss(Regularizer):
    """weight times the squared distance of the means to target; the mean is over all ranks.

    weight, target: dimensionless; version: see above. Defaults are those of the supplement.
    """

    def __init__(
        self,
        *,
        weight: float = 2.0,
        target: float = 0.5,
        version: Literal["paper", "supplement", "released"] = "supplement",
        schedule: str = "constant",
        include: tuple[str, ...] = ("*",),
        exclude: tuple[str, ...] = ("*.lif1",),
    ) -> None:
        problems = []
        if version not in ("paper", "supplement", "released"):
            what = 'is "paper", "supplement" or "released"'
            problems.append(Problem(f"version = {version!r}", what))
        super().__init__(
            amplitude=("weight", weight, "the supplement uses 2"),
            schedule=schedule,
            spec=MomentSpec(potential="input" if version == "released" else "u_pre"),
            include=include,
            exclude=exclude,
            problems=problems,
        )
        self.version, self.target = version, target

    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """The mean (version "paper": the sum) over the layers."""
        if self.version == "released":
            if len(layers) < 3:
                raise UserError("the released IM-Loss leaves out the first and the last layer")
            layers = layers[1:-1]
        terms = torch.stack([self._distance(layer) for layer in layers])
        return terms.sum() if self.version == "paper" else terms.mean()

    def _distance(self, layer: LayerMoments) -> Tensor:
        layer = layer.of_all_ranks()
        if self.version == "supplement":
            return (layer.mean - self.target).square().mean()
        current = self.version == "paper" or fnmatchcase(layer.name, BEHIND_A_SHORTCUT)
        mean = layer.moments[MEMBRANE if current else SPIKES].sum() / layer.elements
        return (mean - self.target).square()
