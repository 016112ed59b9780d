"""Begin a new run from the newest checkpoint of another one, with a changed recipe (`--fork RUN`).

What goes on is the state: weights, running statistics, what the optimizer remembers, the position
in training. What is computed from the recipe is that of the new one: at the position reached, rate
and lambda(n) are those of the new length, so that a longer run falls to 0 at its own end.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from rmploss.engine import checkpoint, run_data
from rmploss.engine.build import make_objective, resolve
from rmploss.engine.checkpoint import Counters, Loaded
from rmploss.engine.differences import differing_fields
from rmploss.engine.optimizer_state import OptimizerState, optimizer_state, restore_optimizer
from rmploss.engine.optimizers import prepare, rate_at
from rmploss.engine.run import RunFolder
from rmploss.engine.tally import Terms
from rmploss.engine.training_state import TrainingState, averaged_tensors
from rmploss.errors import CheckpointError, Problem, UserError
from rmploss.recipes import Recipe
from rmploss.recipes.recipe import FIXED

ORDER = ("data", "batch_size", "train_samples", "seed")
"""The fields that decide which samples are in which batch."""
DATA = ("data", "T", "train_samples", "test_samples")
"""The fields that decide which samples there are, and their content."""
MOST_SHOWN = 5
"""The number of tensors that a refusal names."""


@dataclass(frozen=True)
class Fork:
    """The source of a forked run.

    path: the run folder of the source.
    loaded: its newest checkpoint that verifies.
    before, recipe: of the source, and of the new run, with all options.
    differences: the fields in which the recipes differ, `{"lr": "0.1 is now 0.05"}`.
    """

    path: Path
    loaded: Loaded
    before: Recipe
    recipe: Recipe
    differences: Mapping[str, str] = field(default_factory=dict)

    @property
    def counters(self) -> Counters:
        """Where the new run begins; an epoch of other batches begins again."""
        there = self.loaded.counters
        return Counters(there.epoch, there.step, 0) if self.reordered else there

    @property
    def reordered(self) -> bool:
        """True if the batches are not those of the source."""
        return any(getattr(self.before, name) != getattr(self.recipe, name) for name in ORDER)

    def event(self, batches: int) -> dict[str, Any]:
        """The fields of the event that records the fork.

        batches: the number of batches of an epoch of the new run.
        """
        return {
            "run": str(self.path),
            "checkpoint": self.loaded.path.name,
            "sha256": self.loaded.sha256,
            "epoch": self.counters.epoch,
            "step": self.counters.step,
            "differences": dict(self.differences),
            "next_lr": rate_at(self.recipe, self.counters, batches),
            "next_lambda": lambda_at(self.recipe, self.counters),
            "altered": True,  # `table` compares no published number
        }

    def other_data(self, now: Mapping[str, Any]) -> dict[str, str]:
        """What differs between the data of the source and `now` (`run_data.changes`).

        Empty if the recipes ask for other data, or if the source recorded none.
        """
        if any(getattr(self.before, name) != getattr(self.recipe, name) for name in DATA):
            return {}
        before = run_data.recorded(RunFolder.open(self.path).events())
        return {} if before is None else run_data.changes(before, now)

    def notes(self, batches: int) -> list[str]:
        """The same for people, in lines."""
        at, there = self.counters, self.loaded.counters
        place = f"epoch {at.epoch} of {self.before.epochs}, step {at.step}"
        lines = [f"forked from {self.path} after {place}"]
        lines += [f"  {name}: {values}" for name, values in self.differences.items()]
        if there.batch and self.reordered:
            lines.append("  other batches: the epoch that the source was in begins again")
        lr, weight = rate_at(self.recipe, at, batches), lambda_at(self.recipe, at)
        lines.append(f"  the next step has lr {lr:.4g} and lambda {weight:.4g}")
        lines += [f"checkpoint rejected: {name}: {why}" for name, why in self.loaded.rejected]
        return lines


def smaller_rate(path: Path, recipe: Recipe) -> str:
    """The command that goes on from a run with a tenth of its learning rate.

    path: the run folder.
    """
    return f"rmploss train --fork {shlex.quote(str(path))} --lr {recipe.lr / 10:.3g}"


def lambda_at(recipe: Recipe, at: Counters) -> float:
    """The weight of the regularizer in the next step of a recipe."""
    return make_objective(recipe).weight((at.epoch + 1) / recipe.epochs)


def recipe_differences(before: Recipe, now: Recipe) -> dict[str, str]:
    """The fields in which two recipes differ, options at their defaults included."""
    old, new = (
        {name: value for name, value in resolve(recipe).to_json().items() if name not in FIXED}
        for recipe in (before, now)
    )
    return differing_fields(old, new)


def find_source(path: Path, recipe: Recipe) -> Fork:
    """Load the newest checkpoint of a run that verifies.

    path: the run folder; it is only read.
    recipe: of the new run.

    Raises `UserError` for a folder that is no run, and if nothing would be left to train;
    `CheckpointError` if no checkpoint verifies.
    """
    folder = RunFolder.open(path)
    before, recipe = resolve(folder.recipe()), resolve(recipe)
    loaded = checkpoint.load_latest(path, recipe_hash=folder.recipe_hash)
    done = loaded.counters.epoch
    if done >= recipe.epochs:
        what = f"has done {done} epochs, the new run would have {recipe.epochs}"
        problem = Problem(
            f"--fork {path}", what, f"--epochs {2 * done}, or any number above {done}"
        )
        raise UserError("nothing is left to train", [problem])
    return Fork(path, loaded, before, recipe, recipe_differences(before, recipe))


def begin(fork: Fork, state: TrainingState) -> None:
    """Set a new run's state to that of its source, as far as both have it.

    state: before its first step, with its average.

    Of the optimizer goes on what it keeps under the same names; the rest begins at zero, with the
    hyperparameters of the new recipe. Sums of the epoch go on unless it begins again.
    """
    loaded = fork.loaded
    ours = optimizer_state(state.optimizer, state.net)
    kept = {
        name: tensor
        for name, tensor in loaded.optimizer_state.tensors.items()
        if name in ours.tensors and ours.tensors[name].shape == tensor.shape
    }
    merged = OptimizerState({**ours.tensors, **kept}, ours.numbers, ours.groups)
    restore_optimizer(state.optimizer, state.net, merged)
    prepare(state.optimizer, state.rate)
    averaged = averaged_tensors(loaded)
    if state.average is not None and averaged and fork.before.average == fork.recipe.average:
        state.average.load(averaged)
    if state.scale is not None and loaded.scaler_state:
        state.scale.load_state_dict(loaded.scaler_state)
    state.counters = fork.counters
    goes_on = state.world.is_main and not fork.reordered
    terms = Terms(loaded.extra["terms"]) if goes_on else None  # the sums of all ranks
    state.tally.start(fork.counters.step, terms)


def set_weights(fork: Fork, net: Any) -> None:
    """Load the weights and running statistics of the source; `UserError` for another network."""
    theirs: Mapping[str, Tensor] = fork.loaded.model_state
    ours: Mapping[str, Tensor] = net.state_dict()
    problems = [
        Problem(name, f"is {_shape(theirs.get(name))} in RUN, {_shape(ours.get(name))} here")
        for name in dict.fromkeys([*ours, *theirs])
        if _shape(theirs.get(name)) != _shape(ours.get(name))
    ]
    if problems:
        more = len(problems) - MOST_SHOWN
        problems = problems[:MOST_SHOWN]
        if more > 0:
            problems.append(Problem("and so on", f"{more} more tensors"))
        problems.append(_fix(fork))
        raise UserError(f"the network is not that of {fork.path}", problems)
    try:
        net.load_state_dict(theirs)
    except RuntimeError as error:
        problem = Problem(str(fork.loaded.path), f"does not fit the network: {error}")
        raise CheckpointError("a checkpoint of another network", [problem]) from None


def _fix(fork: Fork) -> Problem:
    shaping = ("network", "neuron", "norm", "data", "T")
    named = [name for name in fork.differences if name.partition(".")[0] in shaping]
    what = "a fork keeps the weights, so it keeps the network"
    return Problem(", ".join(named) or "network", what, "leave this change out, or train anew")


def _shape(tensor: Tensor | None) -> str:
    return "absent" if tensor is None else str(list(tensor.shape))
