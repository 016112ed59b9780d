"""From a recipe to its parts, and everything that is wrong with it before anything is written."""

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
from rmploss.recipes import Recipe, problems_in

PARTS = {
    "data": DATASETS,
    "network": MODELS,
    "neuron": NEURONS,
    "norm": NORMS,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
}
"""The fields of a recipe that name an entry of a table, and the table."""


def check(recipe: Recipe, data_dir: Path | None = None, world_size: int = 1) -> None:
    """Raise `UserError` with all that is wrong with a recipe, missing data included.

    Cheap, and before anything is written. data_dir: where the data sets are (see `data_root`).
    """
    problems = problems_in(recipe)
    for field, table in PARTS.items():
        part = getattr(recipe, field)
        found = table.problems(part.name, part.options)
        problems += [Problem(_rename(p.where, table.kind, field), p.what, p.fix) for p in found]
    if recipe.batch_size % (world_size * max(recipe.accumulate, 1)):
        what = f"is not divisible by {world_size} ranks x accumulate = {recipe.accumulate}"
        problems.append(Problem(f"batch_size = {recipe.batch_size}", what))
    if not problems:
        problems += _deeper(recipe)
    if problems:
        some = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{some} in the recipe {recipe.name}", problems)
    dataset = make_dataset(recipe)
    missing = dataset.missing(data_dir)
    if missing:
        raise UserError(f"the data set {dataset.name} is not complete", missing)


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


def _deeper(recipe: Recipe) -> list[Problem]:
    """What only the parts themselves know to be wrong: values out of range."""
    problems: list[Problem] = []
    for field in ("neuron", "objective", "data"):
        part = getattr(recipe, field)
        try:
            PARTS[field].make(part.name, **part.options)
        except UserError as error:
            found = error.problems or (Problem(field, error.title),)
            problems += [Problem(f"{field}: {p.where}", p.what, p.fix) for p in found]
    try:
        NORMS.make(recipe.norm.name, 1, **recipe.norm.options)
    except UserError as error:
        problems += [Problem(f"norm: {p.where}", p.what, p.fix) for p in error.problems]
    return problems


def _rename(where: str, kind: str, field: str) -> str:
    """A problem's place in the words of the recipe: its field, not the table's kind."""
    return where.replace(kind.replace(" ", "-"), field, 1)
