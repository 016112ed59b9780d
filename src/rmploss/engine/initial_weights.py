"""Initial weights of a run: from its seed, or from a trained run (`rmploss train X --start RUN`).

The recipe names a start; events.jsonl records the source run and the hash of its checkpoint. A
start is applied once, before the first checkpoint, so a resumed run does not need its source.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss.data import Samples
from rmploss.engine import checkpoint, foreign_weights
from rmploss.engine.batches import RankBatches
from rmploss.engine.build import resolve
from rmploss.engine.distributed import World
from rmploss.engine.foreign_weights import MOST_SHOWN
from rmploss.engine.run import RunFolder
from rmploss.engine.starts import STARTS, Start, WeightsStart
from rmploss.errors import Problem, UserError
from rmploss.models import MODELS, SpikingNetwork
from rmploss.recipes import RECIPES, Recipe


def freeze(recipe: Recipe, net: SpikingNetwork) -> None:
    """Freeze what the recipe's start says (`WeightsStart`)."""
    if recipe.start.options.get("freeze", "nothing") == "backbone":
        net.freeze(name for name, _ in net.named_children() if name != "head")


def with_source(recipe: Recipe, source: Path | None) -> Recipe:
    """The recipe with the hash of the weights it starts from, which decide its result.

    source: of `--start`. Raises `UserError` for what holds no weights.
    """
    if recipe.start.name != "weights" or source is None:
        return recipe
    sha256 = foreign_weights.read_weights(source).record["sha256"]
    return recipe.but(start=recipe.start.but(source=sha256[:16]))


def said(event: Mapping[str, Any]) -> str:
    """What a start took, for people; "" if it is none of weights."""
    if "taken" not in event:
        return ""
    lines = [f"started from {event.get('run') or event.get('file')}: {len(event['taken'])} tensors"]
    for word in ("new", "unused"):
        names = event[word]
        more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
        lines += [f"{word}: {', '.join(names[:MOST_SHOWN])}{more}"] if names else []
    return "; ".join(lines)


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
    if isinstance(start, WeightsStart) and run is not None:
        weights = foreign_weights.read_weights(run)
        return Origin(start, weights.tensors, weights.record)
    if start.source is None:
        if run is not None:
            problem = Problem(f"--start {run}", "is not used", "leave it out")
            raise UserError(f"{recipe.name} starts from its seed", [problem])
        return Origin(start)
    if run is None:
        fix = f"rmploss train {start.source}, then --start with the folder of that run"
        if isinstance(start, WeightsStart):
            fix = "--start with a run folder, a .safetensors or a .pt file"
        problem = Problem("--start", "is missing", fix)
        raise UserError(f"{recipe.name} starts from a trained network", [problem])
    folder = RunFolder.open(run)
    other = folder.recipe()
    loaded = checkpoint.load_latest(run, recipe_hash=folder.recipe_hash)
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
        "altered": named is not None
        and resolve(named).fingerprint() != resolve(other).fingerprint(),
        "epoch": loaded.counters.epoch,
        "step": loaded.counters.step,
        "sha256": loaded.sha256,
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
    images = torch.empty(0)
    if origin.start.samples:
        few = recipe.but(batch_size=min(origin.start.samples, len(samples)))
        images, _ = next(RankBatches(few).train(samples, epoch=0))
    try:
        record = origin.start(net, origin.state, images.to(world.device))
    except UserError as error:
        raise UserError(error.title, _with_width(error.problems, origin, net, recipe)) from error
    for tensor in net.state_dict().values():
        world.broadcast(tensor)
    return {**origin.source_run, **record}


def _with_width(
    problems: Sequence[Problem], origin: Origin, net: SpikingNetwork, recipe: Recipe
) -> list[Problem]:
    """The problems of weights that do not fit, with the width at which they would."""
    times = foreign_weights.times_as_wide(net, origin.state)
    now = MODELS.complete(recipe.network.name, recipe.network.options).get("width")
    if times == 1 or not isinstance(now, float):
        return [*problems]
    what = f"is {now:g} here; the source is {times:g} times as wide"
    advice = Problem("network.width", what, f"--width {now * times:g}")
    return [advice, *(problem for problem in problems if problem.where != "start.partial")]
