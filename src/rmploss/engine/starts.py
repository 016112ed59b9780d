"""Rules for the initial weights of a network: `STARTS`, from which a recipe names one."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

from torch import Tensor

from rmploss.engine.foreign_weights import take
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork
from rmploss.models.hybrid import hybrid_start
from rmploss.registry import Registry


class Start(Protocol):
    """A rule for the initial weights.

    source: the name of the recipe whose trained run is needed; None: no run is needed.
    samples: how many training images `__call__` gets.
    """

    source: str | None
    samples: int

    def __call__(
        self, net: SpikingNetwork, state: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Any]:
        """Set the network's weights in place; returns what events.jsonl records.

        net: the new network.
        state: the model state of the source run.
        images: training images `[B, C, H, W]` or `[T, B, C, H, W]`.
        """
        ...


class SeedStart:
    """The weights drawn from the seed when the network was made."""

    source = None
    samples = 0

    def __call__(
        self, net: SpikingNetwork, state: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Any]:
        """Change nothing."""
        return {}


class HybridStart:
    """Diet-SNN's start: the weights of a trained ANN, and thresholds calibrated to them.

    ann: the name of the recipe that trains the ANN.
    percentile, scale, steps, layers: see `models.hybrid.hybrid_start`.
    samples: the number of training images for the calibration.
    """

    def __init__(
        self,
        *,
        ann: str = "",
        percentile: float = 99.7,
        scale: float = 0.3,
        samples: int = 512,
        steps: int = 100,
        layers: tuple[str, ...] = ("*",),
    ) -> None:
        problems = []
        if not ann:
            problems.append(Problem("ann", "is missing", "the recipe that trains the ANN"))
        if not 0 < percentile <= 100:
            problems.append(Problem(f"percentile = {percentile!r}", "must lie in (0, 100]", "99.7"))
        if not 0 < scale < float("inf"):
            problems.append(Problem(f"scale = {scale!r}", "must be positive", "released: 0.3"))
        for name, value in (("samples", samples), ("steps", steps)):
            if value < 1:
                problems.append(Problem(f"{name} = {value!r}", "must be at least 1"))
        if problems:
            raise UserError("bad start", problems)
        self.source: str | None = ann
        self.samples = samples
        self.percentile, self.scale = percentile, scale
        self.steps, self.layers = steps, layers

    def __call__(
        self, net: SpikingNetwork, state: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Any]:
        """Copy the weights and calibrate; returns the thresholds."""
        thresholds = hybrid_start(
            net,
            state,
            images,
            percentile=self.percentile,
            scale=self.scale,
            steps=self.steps,
            layers=self.layers,
        )
        return {"thresholds": thresholds}


class WeightsStart:
    """The weights of a run or of a checkpoint file, by name and shape (`foreign_weights.py`).

    freeze: "backbone" trains the head alone; its running statistics stay, too.
    partial: take what fits, and leave the rest new.
    source: the beginning of the SHA-256 of the weights, which a run records.
    """

    samples = 0

    def __init__(
        self,
        *,
        freeze: Literal["nothing", "backbone"] = "nothing",
        partial: bool = False,
        source: str = "",
    ) -> None:
        self.source: str | None = source
        self.freeze, self.partial = freeze, partial

    def __call__(
        self, net: SpikingNetwork, state: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Any]:
        """Copy the weights; returns the names that are taken, new and unused."""
        return dict(take(net, state, partial=self.partial))


STARTS: Registry[type[Start]] = Registry(
    "start",
    {
        "none": "rmploss.engine.starts:SeedStart",
        "hybrid": "rmploss.engine.starts:HybridStart",
        "weights": "rmploss.engine.starts:WeightsStart",
    },
    family="start",
)
