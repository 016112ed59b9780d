"""From a recipe to its parts, and everything that is wrong with it before anything is written."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch.optim import Optimizer

from rmploss import models
from rmploss.data import DATASETS, DataSet
from rmploss.engine.optimizers import OPTIMIZERS, groups_of
from rmploss.errors import Problem, UserError
from rmploss.models import MODELS, SpikingNetwork
from rmploss.neurons import NEURONS
from rmploss.norm import NORMS
from rmploss.objectives import OBJECTIVES, Objective
from rmploss.randomness import seeded
from rmploss.recipes import Recipe, counted, problems_in

PARTS = {
    "data": DATASETS,
    "network": MODELS,
    "neuron": NEURONS,
    "norm": NORMS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
}
"""The fields of a recipe that name an entry of a table, and the table."""


def check(
    recipe: Recipe,
    data_dir: Path | None = None,
    world_size: int = 1,
    earlier: Sequence[Problem] = (),
) -> None:
    """Raise `UserError` with all that is wrong with a recipe, missing data included.

    Cheap, and before anything is written. data_dir: where the data sets are (see `data_root`);
    earlier: problems found before, to be told together.
    """
    problems = [*earlier, *problems_in(recipe)]
    wrong = set()
    for field, table in PARTS.items():
        part = getattr(recipe, field)
        for p in table.problems(part.name, part.options) or _refused(recipe, field):
            wrong.add(field)
            problems.append(Problem(_rename(p.where, table.kind, field), p.what, p.fix))
    if recipe.batch_size >= 1 and recipe.batch_size % (world_size * max(recipe.accumulate, 1)):
        what = f"is not divisible by {world_size} ranks x accumulate = {recipe.accumulate}"
        problems.append(Problem(f"batch_size = {recipe.batch_size}", what))
    if "data" not in wrong:
        problems += make_dataset(recipe).missing(data_dir)
    if problems:
        raise UserError(counted(problems, recipe.name), problems)


def make_dataset(recipe: Recipe) -> DataSet:
    """The recipe's data set, unopened."""
    return DATASETS.make(recipe.data.name, **recipe.data.options)


def make_network(recipe: Recipe, dataset: DataSet) -> SpikingNetwork:
    """The recipe's network with its initial weights, a function of the seed."""
    neuron = partial(NEURONS.make, recipe.neuron.name, **recipe.neuron.options)
    v_threshold: float = neuron().v_threshold
    norm_options = {"v_threshold": v_threshold, **recipe.norm.options}
    options: dict[str, Any] = {
        "in_channels": dataset.shape(recipe.T)[-3],
        "num_classes": dataset.num_classes,
        "T": recipe.T,
        "neuron": neuron,
        "norm": lambda channels: NORMS.make(recipe.norm.name, channels, **norm_options),
    }
    with seeded(recipe.seed, "initialize"):
        return models.create(recipe.network.name, **{**options, **recipe.network.options})


def make_objective(recipe: Recipe) -> Objective:
    """The recipe's regularizer."""
    return OBJECTIVES.make(recipe.objective.name, **recipe.objective.options)


def make_optimizer(recipe: Recipe, net: SpikingNetwork) -> Optimizer:
    """The recipe's optimizer over the network's parameters; its learning rate is set each step."""
    groups = groups_of(net, recipe.weight_decay, recipe.weight_decay_on)
    return OPTIMIZERS.make(recipe.optimizer.name, groups, **recipe.optimizer.options)


def _refused(recipe: Recipe, field: str) -> Sequence[Problem]:
    """What only the part itself knows to be wrong: values out of range."""
    part = getattr(recipe, field)
    arguments: dict[str, tuple[Any, ...]] = {"norm": (1,)}
    if field in ("network", "optimizer"):
        return ()  # costly to make; their values are checked by type
    try:
        PARTS[field].make(part.name, *arguments.get(field, ()), **part.options)
    except UserError as error:
        found = error.problems or (Problem("", error.title),)
        return [Problem(f"{field}: {p.where}".rstrip(": "), p.what, p.fix) for p in found]
    return ()


def _rename(where: str, kind: str, field: str) -> str:
    """A problem's place in the words of the recipe: its field, not the table's kind."""
    return where.replace(kind.replace(" ", "-"), field, 1)
