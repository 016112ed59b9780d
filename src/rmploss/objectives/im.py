"""IM-Loss (Guo et al., NeurIPS 2022): centre the membranes on the threshold.

A neuron that fires with probability 1/2 has the largest entropy; the loss pulls the mean of the
membrane to V_th. Three published versions disagree (u: potential before the reset, m: its mean):

    paper        sum over layers of (m_l - V_th)^2                              weight 2
    supplement   mean over layers and channels of (m_lc - V_th)^2               weight 2
    released     mean over layers of (m_l - target)^2, target 0.5 / T; m_l is the mean input
                 current after a shortcut, the mean of the *spikes* elsewhere; without the first
                 layer, and without a last linear layer, which our networks lack weight 0.005

The paper's text was not available: its line is from a summary. All versions leave out the inner
neurons of residual blocks.
"""

import math
from typing import Literal, Unpack

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.objectives.regularizer import Regularizer, RegularizerOptions
from rmploss.ops.lif.moments import MEMBRANE, SPIKES, MomentSpec
from rmploss.stats import LayerMoments

RELEASED = 0.005
"""The weight of the released version."""


class IMLoss(Regularizer):
    """weight times the squared distance of means to target; means are over all ranks.

    weight: None: the published one, 2 ("released": 0.005).
    target: None: the published one, the threshold of each layer ("released": 0.5 / T).
    version: "paper", "supplement" or "released", see above.
    T: time steps; only "released" uses it.
    schedule, include, exclude: see `Regularizer`.

    All values are dimensionless. Raises `UserError`.
    """

    @checked()
    def __init__(
        self,
        *,
        weight: float | None = None,
        target: float | None = None,
        version: Literal["paper", "supplement", "released"] = "supplement",
        T: int = 4,
        **options: Unpack[RegularizerOptions],
    ) -> None:
        problems = []
        if version not in ("paper", "supplement", "released"):
            what = 'is "paper", "supplement" or "released"'
            problems.append(Problem(f"version = {version!r}", what))
        released = version == "released"
        if weight is None:
            weight = RELEASED if released else 2.0
        if target is not None and not math.isfinite(target):
            problems.append(Problem(f"target = {target!r}", "must be finite", "none, as published"))
        if T < 1:
            problems.append(Problem(f"T = {T!r}", "must be at least 1"))
        super().__init__(
            amplitude=("weight", weight, "the supplement uses 2"),
            spec=MomentSpec(potential="input" if released else "u_pre"),
            problems=problems,
            **options,
        )
        self.version = version
        self.T = T if released else None
        self.target = 0.5 / T if released and target is None else target

    def of_layers(self, layers: list[LayerMoments]) -> Tensor:
        """The mean (version "paper": the sum) over the layers."""
        layers = [layer for layer in layers if layer.place != "inner"]
        if self.version == "released":
            layers = layers[1:]
        if not layers:
            raise UserError(f"no layer is left for the {self.version} IM-Loss")
        terms = torch.stack([self._distance(layer) for layer in layers])
        return terms.sum() if self.version == "paper" else terms.mean()

    def _distance(self, layer: LayerMoments) -> Tensor:
        layer = layer.of_all_ranks()
        target = layer.v_threshold if self.target is None else self.target
        if self.version == "supplement":
            return (layer.mean - target).square().mean()
        current = self.version == "paper" or layer.place == "sum"
        mean = layer.moments[MEMBRANE if current else SPIKES].sum() / layer.elements
        return (mean - target).square()
