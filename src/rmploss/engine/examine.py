"""After a step that was not finite: run it again under a `crash.Trace`, write what was found."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rmploss.data import Samples, batch_indices
from rmploss.engine import crash
from rmploss.engine.batches import RankBatches
from rmploss.engine.checkpoint import Counters
from rmploss.engine.crash import LOSSES, Suspect, Trace
from rmploss.engine.distributed import World
from rmploss.engine.static_batch import StaticBatch
from rmploss.engine.step import TrainingStep
from rmploss.lifecycle import evaluating
from rmploss.models import SpikingNetwork
from rmploss.randomness import seeded
from rmploss.recipes import Recipe

Losses = dict[str, float]


@dataclass(frozen=True)
class Finding:
    """What was found.

    record: the name of its record in the run folder; None: it could not be written.
    suspect: the first bad place; None: the second time all numbers were finite.
    trouble: why there is no record, or why it stops early.
    """

    record: str | None
    suspect: Suspect | None
    trouble: str = ""

    def words(self) -> str:
        """The finding as a sentence."""
        if self.suspect is not None:
            return self.suspect.words()
        return self.trouble or "nothing: run again, all numbers were finite"


def examine_step(
    step: TrainingStep,
    held: StaticBatch,
    samples: Samples,
    path: Path,
    at: Counters,
    rate: float,
) -> Finding:
    """Run a training step again, without its update, and write the record. All ranks call this.

    step: parameters and buffers stay as they are.
    held: its batch, which is filled again.
    samples: the training samples.
    path: the run folder.
    at: the position before the step.
    rate: its learning rate.
    """
    recipe, world, net = step.recipe, step.world, step.state.net
    again_made = RankBatches(recipe, world).train(
        samples, epoch=at.epoch, skip=at.batch, as_indices=held.make is not None
    )
    held.fill(*next(again_made))
    images, _ = held()

    def again(trace: Trace) -> Losses:
        step.state.optimizer.zero_grad(set_to_none=True)
        before = step.buffers.save()
        place = ("step", at.epoch, at.batch, world.rank)
        try:
            with seeded(recipe.seed, *place, device=world.device):
                sums = step.gradients().sums
            means = (sums[:2] / sums[3]).tolist()
            losses = dict(zip(LOSSES, means, strict=True))
            trace.add_after(losses)
            return losses
        finally:
            step.buffers.restore(before, torch.ones((), dtype=torch.bool, device=world.device))
            step.state.optimizer.zero_grad(set_to_none=True)

    size, seed = recipe.batch_size, recipe.seed
    fields = {
        "phase": "train",
        "epoch": at.epoch + 1,
        "batch": at.batch + 1,
        "samples": batch_indices(
            len(samples), batch_size=size, epoch=at.epoch, seed=seed, batch=at.batch
        ),
        "lr": rate,
        "lambda": step.weights.tolist(),
    }
    return _examine(net, world, images, again, path, at.step, fields)


def examine_test(
    net: SpikingNetwork, recipe: Recipe, samples: Samples, path: Path, at: Counters, world: World
) -> Finding:
    """Run the first test batch again, and write the record. All ranks call this.

    net: the network after the last step of an epoch, or that of the averaged weights.
    recipe: of the run.
    samples: the test samples.
    path: the run folder.
    at: the position after the step.
    world: this process among the ranks.
    """
    images, _ = next(RankBatches(recipe, world).test(samples))
    images = images.to(world.device)

    def again(trace: Trace) -> Losses:
        with evaluating(net), torch.no_grad():
            net(images)
        return {}

    first = [*range(min(recipe.batch_size, len(samples)))]
    fields = {"phase": "test", "epoch": at.epoch + 1, "batch": 1, "samples": first}
    return _examine(net, world, images, again, path, at.step, fields)


def _examine(
    net: SpikingNetwork,
    world: World,
    images: Tensor,
    again: Callable[[Trace], Losses],
    path: Path,
    step: int,
    fields: dict[str, object],
) -> Finding:
    trace, losses, trouble = Trace(net), {}, ""
    trace.add_before(images)
    try:
        with trace.watch():
            losses = again(trace)
    except Exception as error:  # It must not hide the NaN that is looked for.
        trouble = f"the step could not be run again: {type(error).__name__}: {error}"
    trace.sum_over(world)
    suspect = trace.first_bad()
    if not world.is_main:
        return Finding(None, suspect, trouble)
    try:
        record = crash.write(path, step, {**fields, "trouble": trouble}, suspect, trace, losses)
    except (OSError, ValueError) as error:  # `StoreError` is a ValueError
        return Finding(None, suspect, f"no record: {error}")
    return Finding(record, suspect, trouble)
