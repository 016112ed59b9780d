"""Where a run has its first weights from: its seed, or another run (`rmploss train X --start RUN`).

A start is part of the recipe; which run it is given, with the hash of its checkpoint, is an event
in the run's record. It happens once, before the first checkpoint: resuming knows nothing of it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from rmploss.data import Samples
from rmploss.engine import checkpoint
from rmploss.engine.distributed import World
from rmploss.engine.feed import train_batches
from rmploss.engine.run import RunFolder
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork
from rmploss.models.hybrid import hybrid_start
from rmploss.recipes import RECIPES, Recipe
from rmploss.registry import Registry


class Start(Protocol):
    """What a start offers. source: the recipe whose run it needs; None: none. samples: how many."""

    source: str | None
    samples: int

    def __call__(
        self, net: SpikingNetwork, state: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Any]:
        """Give the network its weights, from a state and training images; what to record of it."""
        ...


class SeedStart:
    """The weights are drawn from the seed: how a network is made."""

    source = None
    samples = 0

    def __call__(
        self, net: SpikingNetwork, state: Mapping[str, Tensor], images: Tensor
    ) -> dict[str, Any]:
        """Nothing to do."""
        return {}


class HybridStart:
    """Diet-SNN's: the weights of a trained ANN, and thresholds calibrated to them.

    ann: the recipe that trains the ANN; percentile, scale, steps, layers: see
    `models.hybrid.hybrid_start`; samples: how many training images it looks at.
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
        """The thresholds."""
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
        "none": "rmploss.engine.start:SeedStart",
        "hybrid": "rmploss.engine.start:HybridStart",
    },
)


@dataclass(frozen=True)
class Origin:
    """What a run starts from: a start, the state of another run, and where that is from."""

    start: Start
    state: Mapping[str, Tensor] = field(default_factory=dict)
    found: Mapping[str, Any] = field(default_factory=dict)


def find(recipe: Recipe, run: Path | None) -> Origin:
    """The origin of a run of a recipe; run: what `--start` gave, whose checkpoint is verified.

    Raises `UserError` for a run that is missing, unfinished or of another recipe than the start
    names; `CheckpointError` for a damaged one.
    """
    start: Start = STARTS.make(recipe.start.name, **recipe.start.options)
    if start.source is None:
        if run is not None:
            problem = Problem(f"--start {run}", "is of no use to it", "leave it out")
            raise UserError(f"{recipe.name} starts from its seed", [problem])
        return Origin(start)
    if run is None:
        fix = f"rmploss train {start.source}, and then --start with the folder of that run"
        problem = Problem("--start", "is missing", fix)
        raise UserError(f"{recipe.name} starts from a trained network", [problem])
    folder = RunFolder.open(run)
    other = folder.recipe()
    loaded = checkpoint.load_latest(run, recipe_hash=folder.recipe_hash)
    manifest = json.loads((loaded.path / checkpoint.MANIFEST).read_bytes())
    if other.name != start.source or loaded.progress.epoch < other.epochs:
        what = f"is of {other.name}, {loaded.progress.epoch} of {other.epochs} epochs"
        problems = [Problem(f"--start {run}", what, f"a finished run of {start.source}")]
        problems += [Problem(name, f"is damaged: {why}") for name, why in loaded.rejected]
        raise UserError(f"{recipe.name} starts from a finished {start.source}", problems)
    named = RECIPES.get(other.name)
    found = {
        "run": str(run),
        "recipe": other.name,
        # Changed by --set: then this run answers to no published number, as `table` must know.
        "altered": named is not None and named.fingerprint() != other.fingerprint(),
        "epoch": loaded.progress.epoch,
        "step": loaded.progress.step,
        "sha256": manifest["files"][checkpoint.STATE]["sha256"],
    }
    return Origin(start, loaded.model_state, found)


def begin(
    origin: Origin, net: SpikingNetwork, recipe: Recipe, samples: Samples, world: World
) -> dict[str, Any]:
    """Give a new network its first weights, on all ranks the same; returns what to record."""
    if origin.start.source is None:
        return {}
    few = recipe.but(batch_size=min(origin.start.samples, len(samples)))
    images, _ = next(iter(train_batches(few, samples, World(), 0, epoch=0, start=0)))
    told = origin.start(net, origin.state, images.to(world.device))
    for tensor in net.state_dict().values():
        world.broadcast(tensor)
    return {**origin.found, **told}
