"""Initial weights of a run: from its seed, or from a trained run (`rmploss train X --start RUN`).

The recipe names a start; events.jsonl records the source run and the hash of its checkpoint. A
start is applied once, before the first checkpoint, so a resumed run does not need its source.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rmploss.data import Samples
from rmploss.engine import checkpoint
from rmploss.engine.batches import RankBatches
from rmploss.engine.distributed import World
from rmploss.engine.run import RunFolder
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork
from rmploss.models.hybrid import hybrid_start
from rmploss.recipes import RECIPES, Recipe
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


STARTS: Registry[type[Start]] = Registry(
    "start",
    {
        "none": "rmploss.engine.initial_weights:SeedStart",
        "hybrid": "rmploss.engine.initial_weights:HybridStart",
    },
    family="start",
)


@dataclass(frozen=True)
class Origin:
    """The origin of a run's initial weights.

    start: how they are set.
    state: the model state of the source run; empty without one.
    source_run: the source run, as events.jsonl records it; empty without one.
    """

    start: Start
    state: Mapping[str, Tensor] = field(default_factory=dict)
    source_run: Mapping[str, Any] = field(default_factory=dict)


def find_origin(recipe: Recipe, run: Path | None) -> Origin:
    """Load the origin of the initial weights, and verify its checkpoint.

    recipe: of the new run.
    run: the run folder given by `--start`.

    Raises `UserError` for a source run that is missing, unfinished or of another recipe than the
    start names; `CheckpointError` for a damaged one.
    """
    start: Start = STARTS.make(recipe.start.name, **recipe.start.options)
    if start.source is None:
        if run is not None:
            problem = Problem(f"--start {run}", "is not used", "leave it out")
            raise UserError(f"{recipe.name} starts from its seed", [problem])
        return Origin(start)
    if run is None:
        fix = f"rmploss train {start.source}, then --start with the folder of that run"
        problem = Problem("--start", "is missing", fix)
        raise UserError(f"{recipe.name} starts from a trained network", [problem])
    folder = RunFolder.open(run)
    other = folder.recipe()
    loaded = checkpoint.load_latest(run, recipe_hash=folder.recipe_hash)
    manifest = json.loads((loaded.path / checkpoint.MANIFEST).read_bytes())
    if other.name != start.source or loaded.counters.epoch < other.epochs:
        what = f"is of {other.name}, {loaded.counters.epoch} of {other.epochs} epochs"
        problems = [Problem(f"--start {run}", what, f"a finished run of {start.source}")]
        problems += [Problem(name, f"is damaged: {why}") for name, why in loaded.rejected]
        raise UserError(f"{recipe.name} starts from a finished {start.source}", problems)
    named = RECIPES.get(other.name)
    source_run = {
        "run": str(run),
        "recipe": other.name,
        # True if --set changed the source's recipe: `table` then compares no published number.
        "altered": named is not None and named.fingerprint() != other.fingerprint(),
        "epoch": loaded.counters.epoch,
        "step": loaded.counters.step,
        "sha256": manifest["files"][checkpoint.STATE]["sha256"],
    }
    return Origin(start, loaded.model_state, source_run)


def initialize(
    origin: Origin, net: SpikingNetwork, recipe: Recipe, samples: Samples, world: World
) -> dict[str, Any]:
    """Set the initial weights of a new network, the same on all ranks.

    origin: from `find_origin`.
    net: the new network, changed in place.
    recipe: its recipe.
    samples: the training samples.
    world: this process among the ranks.

    Returns the fields of the event that records them; empty for weights from the seed.
    """
    if origin.start.source is None:
        return {}
    few = recipe.but(batch_size=min(origin.start.samples, len(samples)))
    images, _ = next(RankBatches(few).train(samples, epoch=0))
    record = origin.start(net, origin.state, images.to(world.device))
    for tensor in net.state_dict().values():
        world.broadcast(tensor)
    return {**origin.source_run, **record}
