"""From a recipe to its parts, and everything that is wrong with it before anything is written."""

import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from rmploss import models
from rmploss.data import DATASETS, DataSet
from rmploss.engine.optimizers import LR_SCHEDULES, OPTIMIZERS, Moment, groups_of
from rmploss.engine.start import STARTS
from rmploss.errors import Problem, UserError
from rmploss.models import MODELS, SpikingNetwork
from rmploss.neurons import NEURONS, SpikingLayer
from rmploss.neurons.diet import Diet
from rmploss.norm import NORMS
from rmploss.objectives import LOSSES, OBJECTIVES, Loss, Objective
from rmploss.randomness import seeded
from rmploss.recipes import Recipe, Use, problem_count, problems_in
from rmploss.registry import fits
from rmploss.stats import membrane_stats

PARTS = {
    "data": DATASETS,
    "network": MODELS,
    "neuron": NEURONS,
    "norm": NORMS,
    "loss": LOSSES,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "lr_schedule": LR_SCHEDULES,
    "start": STARTS,
}
"""The fields of a recipe that name an entry of a table, and the table."""
DECIDED = {
    "in_channels": "the data",
    "num_classes": "the data",
    "T": "T",
    "neuron": "neuron",
    "norm": "norm",
}
"""Options of a network that follow from other fields of the recipe: from which."""
NARROW = 1 / 64
"""The width of a network that is only tried out."""


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
    problems += _unshareable(recipe, world_size)
    if "data" not in wrong:
        problems += make_dataset(recipe).missing(data_dir)
    if not wrong:
        apart = _incompatible(recipe)
        problems += apart or (_rehearsed(recipe) if recipe.T >= 1 else [])
    if problems:
        raise UserError(problem_count(problems, recipe.name), problems)


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with every option of its parts spelled out.

    Two recipes that mean the same are equal then, however they were written.
    """
    known = {"norm": _of_the_neuron(recipe)}
    parts = {}
    for field, table in PARTS.items():
        part = getattr(recipe, field)
        options = {**known.get(field, {}), **part.options}
        parts[field] = Use(part.name, {**options, **table.complete(part.name, options)})
    return recipe.but(**parts)


def read_none(recipe: Recipe) -> Recipe:
    """The recipe with the word "none" where None was typed and an option has that word for a value.

    `--set norm.factor=none` reads as nothing; what an option can be is known to its table alone.
    """
    parts = {}
    for field, table in PARTS.items():
        part = getattr(recipe, field)
        hints = table.options(part.name) if part.name in table else {}
        words = {
            option: "none"
            for option, value in part.options.items()
            if value is None and not fits(None, hints.get(option)) and fits("none", hints[option])
        }
        parts[field] = part.but(**words) if words else part
    return recipe.but(**parts)


def make_dataset(recipe: Recipe) -> DataSet:
    """The recipe's data set, unopened."""
    return DATASETS.make(recipe.data.name, **recipe.data.options)


def make_network(recipe: Recipe, dataset: DataSet) -> SpikingNetwork:
    """The recipe's network with its initial weights, a function of the seed."""
    neuron = partial(NEURONS.make, recipe.neuron.name, **recipe.neuron.options)
    norm_options = {**_of_the_neuron(recipe), **recipe.norm.options}
    options: dict[str, Any] = {
        "in_channels": dataset.shape(recipe.T)[-3],
        "num_classes": dataset.num_classes,
        "T": recipe.T,
        "neuron": neuron,
        "norm": lambda channels: NORMS.make(recipe.norm.name, channels, **norm_options),
    }
    with seeded(recipe.seed, "initialize"):
        return models.create(recipe.network.name, **{**options, **recipe.network.options})


def _of_the_neuron(recipe: Recipe) -> dict[str, Any]:
    """What the norm takes from the neuron: its threshold (Eq. 6), where it asks for it."""
    if "v_threshold" not in NORMS.options(recipe.norm.name):
        return {}
    neuron = NEURONS.make(recipe.neuron.name, 1, **recipe.neuron.options)
    return {"v_threshold": neuron.v_threshold}


def make_loss(recipe: Recipe) -> Loss:
    """The recipe's loss of the classification."""
    return LOSSES.make(recipe.loss.name, **recipe.loss.options)


def make_objective(recipe: Recipe) -> Objective:
    """The recipe's regularizer."""
    return OBJECTIVES.make(recipe.objective.name, **recipe.objective.options)


def make_optimizer(recipe: Recipe, net: SpikingNetwork) -> Optimizer:
    """The recipe's optimizer over the network's parameters; its learning rate is set each step."""
    groups = groups_of(net, recipe.weight_decay, recipe.weight_decay_on)
    return OPTIMIZERS.make(recipe.optimizer.name, groups, **recipe.optimizer.options)


def _refused(recipe: Recipe, field: str) -> Sequence[Problem]:
    """What the signature of a part does not tell: values out of range, or decided elsewhere."""
    part = getattr(recipe, field)
    found = [
        Problem(f"{field}.{option} = {value}", "must be finite")
        for option, value in part.options.items()
        if isinstance(value, float) and not math.isfinite(value)
    ]
    if field == "network":
        found += [
            Problem(f"network.{option}", f"follows from {DECIDED[option]}", "leave it out")
            for option in part.options
            if option in DECIDED
        ]
        if part.options.get("width", 1.0) <= 0:
            found.append(Problem(f"network.width = {part.options['width']}", "must be positive"))
        return found
    arguments: dict[str, tuple[Any, ...]] = {
        "norm": (1,),
        "neuron": (1,),
        "lr_schedule": (Moment(0, 1, 0, 1),),
        "optimizer": ([nn.Parameter(torch.zeros(1))],),
    }
    try:
        made = PARTS[field].make(part.name, *arguments.get(field, ()), **part.options)
    except UserError as error:
        told = error.problems or (Problem("", error.title),)
        return found + [Problem(f"{field}: {p.where}".rstrip(": "), p.what, p.fix) for p in told]
    except ValueError as error:  # PyTorch's own, of an optimizer
        return [*found, Problem(field, str(error))]
    if field == "neuron":
        found += _unfit_neuron(made)
    return found


def _unfit_neuron(neuron: SpikingLayer) -> list[Problem]:
    """What a neuron may be elsewhere, but not in training."""
    if not neuron.carry_state:
        return []
    what = "would carry the membrane from one batch to the next"
    return [Problem("neuron.carry_state", what, "leave it out")]


def _incompatible(recipe: Recipe) -> list[Problem]:
    """Parts that are right by themselves and not defined together, with the reason."""
    found = []
    neuron = NEURONS.make(recipe.neuron.name, 1, **recipe.neuron.options)
    if make_objective(recipe).spec is not None and neuron.unregularized:
        where = f"objective = {recipe.objective.name} with neuron = {recipe.neuron.name}"
        found.append(Problem(where, neuron.unregularized, "objective=none"))
    if recipe.start.name != "none" and not isinstance(neuron, Diet):
        where = f"start = {recipe.start.name} with neuron = {recipe.neuron.name}"
        found.append(Problem(where, "calibrates thresholds that are learnt", "neuron=diet"))
    T = getattr(make_objective(recipe), "T", None)
    if T is not None and recipe.T != T:
        found.append(Problem(f"objective.T = {T}", "is not that of the recipe", f"{recipe.T}"))
    ours, theirs = (getattr(part, "tau_s", None) for part in (make_loss(recipe), neuron))
    if ours is not None and theirs is not None and ours != theirs:
        what = f"the target must be filtered as the outputs are, whose tau_s is {theirs}"
        found.append(Problem(f"loss.tau_s = {ours}", what, f"loss.tau_s={theirs}"))
    needs, gives = LOSSES[recipe.loss.name].needs, MODELS[recipe.network.name].gives
    if needs != gives:
        where = f"loss = {recipe.loss.name} with network = {recipe.network.name}"
        fix = f"loss={'joint' if gives == 'branches' else 'ce'}"
        found.append(Problem(where, f"the loss needs {needs}, the network gives {gives}", fix))
    return found


def _unshareable(recipe: Recipe, ranks: int) -> list[Problem]:
    """A batch that cannot be shared out equally between the ranks, part by part."""
    size, share = recipe.batch_size, ranks * recipe.accumulate
    if ranks == 1 or min(size, share) < 1 or size % share == 0:
        return []
    what = f"is not divisible by {ranks} ranks x accumulate = {recipe.accumulate}"
    sizes = [n for n in (size - size % share, size - size % share + share) if n]
    fix = "try " + " or ".join(map(str, sizes))
    return [Problem(f"batch_size = {size}", what, fix)]


def _rehearsed(recipe: Recipe) -> list[Problem]:
    """What a step meets before its backward: two empty samples through the narrowest network."""
    dataset = make_dataset(recipe)
    network = recipe.network
    if "width" in MODELS.options(network.name):
        network = network.but(width=NARROW)
    *time, C, H, W = dataset.shape(recipe.T)
    objective = make_objective(recipe)
    try:
        net = make_network(recipe.but(network=network), dataset)
        with torch.no_grad(), membrane_stats(net, objective.spec) as stats:
            outputs = net(torch.zeros(*time, 2, C, H, W), over_time=True)
            logits = net.readout(outputs)
            make_loss(recipe)(outputs, logits, torch.zeros(2, dtype=torch.int64))
            objective(stats, 1.0)
    except UserError as error:
        return list(error.problems) or [Problem(f"network = {network.name}", error.title)]
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        what = f"cannot take the inputs {[C, H, W]} of {dataset.name}: {reason}"
        return [Problem(f"network = {network.name}", what)]
    return []


def _rename(where: str, kind: str, field: str) -> str:
    """A problem's place in the words of the recipe: its field, not the table's kind."""
    return where.replace(kind.replace(" ", "-"), field, 1)
