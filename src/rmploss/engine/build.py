"""Build the parts of a recipe, and check all of it before anything is written."""

import math
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from rmploss import models
from rmploss.data import DATASETS, DataSet
from rmploss.engine.averaging import AVERAGES, WeightAverage
from rmploss.engine.limits import USUAL_STEPS, size_problems
from rmploss.engine.optimizers import LR_SCHEDULES, OPTIMIZERS, Position, groups_of
from rmploss.engine.own_data import settle
from rmploss.engine.ranks import is_broken_connection
from rmploss.engine.starts import STARTS
from rmploss.errors import Problem, SmallMapError, UserError
from rmploss.models import MODELS, SpikingNetwork
from rmploss.models.flow import calls
from rmploss.neurons import NEURONS, SpikingLayer
from rmploss.neurons.diet import Diet
from rmploss.neurons.mpd_agl import AdaptiveWidthLIF
from rmploss.norm import NORMS, TDBatchNorm2d
from rmploss.objectives import AUXILIARIES, LOSSES, OBJECTIVES, Loss, Objective
from rmploss.objectives.auxiliary import WithAuxiliary
from rmploss.objectives.mpd_sgr import MPDSGRLoss
from rmploss.objectives.regularizer import Regularizer
from rmploss.objectives.weighting import terms_of, weighted, weights_of
from rmploss.ops.lif.moments import MomentSpec
from rmploss.randomness import seeded
from rmploss.recipes import Recipe, Use, problem_count, problems_in
from rmploss.registry import fits
from rmploss.sizes import MOST_STEPS, USUAL_WIDTH, memory, step_problems
from rmploss.stats import membrane_stats
from rmploss.surrogate import Surrogate

PARTS = {
    "data": DATASETS,
    "network": MODELS,
    "neuron": NEURONS,
    "norm": NORMS,
    "loss": LOSSES,
    "auxiliary": AUXILIARIES,
    "objective": OBJECTIVES,
    "optimizer": OPTIMIZERS,
    "lr_schedule": LR_SCHEDULES,
    "average": AVERAGES,
    "start": STARTS,
}
"""The fields of a recipe that name an entry of a table, and that table."""
DECIDED = {
    "in_channels": "the data",
    "num_classes": "the data",
    "T": "T",
    "neuron": "neuron",
    "norm": "norm",
}
"""Options of a network that a recipe must not set, and what decides them."""
DRY_RUN_WIDTH = 1 / 64
"""The width of the network in `_dry_run`."""


def check(
    recipe: Recipe,
    data_dir: Path | None = None,
    world_size: int = 1,
    earlier: Sequence[Problem] = (),
) -> list[str]:
    """Raise `UserError` with all problems of a recipe, missing data included. Writes nothing.

    Returns remarks: what is allowed and may not be meant, in words.

    recipe: the recipe.
    data_dir: the folder of the data sets; None: the default (`data.data_root`).
    world_size: the number of ranks that share a batch.
    earlier: problems of the caller, reported together with those of the recipe.
    """
    problems = [*earlier, *problems_in(recipe)]
    with suppress(UserError):  # of an option out of range, which is reported below
        recipe = settle(recipe, data_dir)
    wrong = set()
    for field, table in PARTS.items():
        part = getattr(recipe, field)
        found = table.problems(part.name, part.options)
        for p in (*found, *_bad_options(_without_wrong_types(recipe, field), field)):
            wrong.add(field)
            problems.append(Problem(_rename(p.where, table.kind, field), p.what, p.fix))
    problems += _indivisible_batch(recipe, world_size) + step_problems(recipe.T)
    remarks: list[str] = []
    if "data" not in wrong:
        problems += make_dataset(recipe).missing(data_dir)
    if not wrong:
        conflicts = _incompatible(recipe)
        if not conflicts and 1 <= recipe.T <= MOST_STEPS:
            conflicts = _oversize(recipe, world_size) or _dry_run(recipe, remarks)
        problems += conflicts
    if problems:
        raise UserError(problem_count(problems, recipe.name), problems)
    return [
        *remarks,
        *weightless(recipe),
        *unlike_window(recipe),
        *unlike_readout(recipe),
        *of_parts(recipe),
    ]


def _without_wrong_types(recipe: Recipe, field: str) -> Recipe:
    """The recipe without the options of a part that its entry cannot have, to try the others."""
    part = getattr(recipe, field)
    table = PARTS[field]
    if part.name not in table:
        return recipe
    sound = {k: v for k, v in part.options.items() if not table.problems(part.name, {k: v})}
    return recipe.but(**{field: Use(part.name, sound)})


def weightless(recipe: Recipe, after: int = 0) -> list[str]:
    """The remark on a regularizer whose weight lambda(n) is 0 in every epoch; else empty.

    after: the epochs that are done already; only those that follow count.
    """
    objective, N = make_objective(recipe), recipe.epochs
    if objective.spec is None:
        return []
    epochs = range(after + 1, N + 1, max(1, (N - after) // 100))
    if any(any(weights_of(objective, n / N)) for n in epochs):
        return []
    cause = "Eq. 12 is 0 at n = N: more --epochs, or --set objective.schedule=constant"
    which = f"all epochs n of {N}" if not after else f"the epochs n that are left of {N}"
    name = recipe.objective.name
    return [f"objective = {name} has no effect: lambda(n) = 0 in {which} ({cause})"]


def unlike_window(recipe: Recipe) -> list[str]:
    """The remark on a window of MPD-SGR that is not the one of the surrogate; else empty."""
    neuron = NEURONS.make(recipe.neuron.name, 1, **recipe.neuron.options)
    surrogate = getattr(neuron, "surrogate", None)
    reach = surrogate.half_width if isinstance(surrogate, Surrogate) else None
    terms = terms_of(make_objective(recipe))
    widths = [term.half_width for term in terms if isinstance(term, MPDSGRLoss)]
    return [
        f"MPD-SGR counts membranes with |u - V_th| < {width:g}, but {type(surrogate).__name__} has "
        f"a slope where it is < {reach:g} (half_width={reach:g} of mpd_sgr)"
        for width in widths
        if reach is not None and width != reach
    ]


def unlike_readout(recipe: Recipe) -> list[str]:
    """The remark on self-distillation for another read-out than the network's; else empty."""
    known = MODELS.complete(recipe.network.name, recipe.network.options).get("readout")
    told = AUXILIARIES.complete(recipe.auxiliary.name, recipe.auxiliary.options).get("readout")
    if told is None or known not in ("sum", "mean") or told == known:
        return []
    factor = "1/T" if known == "sum" else "T"
    what = f"but the network's is the {known} of the steps: its outputs count {factor} times"
    return [f"auxiliary.readout = {told}, {what} (auxiliary.readout={known})"]


def of_parts(recipe: Recipe) -> list[str]:
    """The remark on a batch in parts whose regularizer is not the mean of those of its parts."""
    terms = terms_of(make_objective(recipe))
    apart = [term for term in terms if isinstance(term, Regularizer) and not term.is_mean]
    names = ["the norm"] * (recipe.norm.name != "none") + [type(term).__name__ for term in apart]
    if recipe.accumulate == 1 or not names:
        return []
    size = recipe.batch_size // recipe.accumulate
    return [
        f"accumulate = {recipe.accumulate}: {name} takes mean and deviation of {size} samples at a "
        f"time, not of a batch of {recipe.batch_size}, and so trains otherwise"
        for name in names
    ]


def _oversize(recipe: Recipe, ranks: int) -> list[Problem]:
    """The problem of a network or a batch that no memory here holds; empty if it may fit.

    Usual sizes are not measured: it takes as long as the trial.
    """
    width: Any = recipe.network.options.get("width", 1.0)
    steps = recipe.T * recipe.batch_size // (recipe.accumulate * ranks)
    if steps <= USUAL_STEPS and width <= USUAL_WIDTH:
        return []
    dataset = make_dataset(recipe)
    *_, C, H, W = dataset.shape(1)
    try:
        with torch.device("meta"), torch.no_grad():
            net = make_network(recipe, dataset).train(False)
            with membrane_stats(net, MomentSpec()) as stats:
                net(torch.empty(1, 1, C, H, W))
    except UserError:
        return []  # the trial says it with the inputs of the data
    except (RuntimeError, OverflowError) as error:
        if width <= USUAL_WIDTH:
            return []
        where = f"network.width = {width} ({type(error).__name__})"
        return [Problem(where, "makes more parameters than can be counted", "--width 1")]
    parameters = sum(p.numel() for p in net.parameters())
    values = {layer.name: layer.elements for layer in stats}
    return size_problems(recipe, parameters, values, ranks, memory())


def resolve(recipe: Recipe) -> Recipe:
    """The recipe with all options of its parts explicit, so that equivalent recipes are equal.

    A run stores it: a later version with other defaults, or with another rule for the norm's
    threshold, changes no resumed run. The network's options that other fields decide (`DECIDED`)
    are left out, as a recipe must not set them.
    An entry that this process lacks, of a plug-in, keeps the options that it has.
    """
    known = {"norm": _threshold_option(recipe)}
    parts = {}
    for field, table in PARTS.items():
        part = getattr(recipe, field)
        if part.name not in table:
            continue
        options = {**known.get(field, {}), **part.options}
        decided = DECIDED if field == "network" else {}
        full = table.complete(part.name, options).items()
        options |= {option: value for option, value in full if option not in decided}
        parts[field] = Use(part.name, options)
    return recipe.but(**parts)


def loosen(recipe: Recipe) -> Recipe:
    """The recipe without the norm's threshold, if it has the value that follows from the neuron.

    A fork with another neuron so gets the threshold of that one, as the recipe of a new run does.
    """
    follows = _threshold_option(recipe)
    kept = {k: v for k, v in recipe.norm.options.items() if k not in follows or v != follows[k]}
    return recipe.but(norm=Use(recipe.norm.name, kept))


def restore_none_words(recipe: Recipe) -> Recipe:
    """Replace None by the word "none" in options that allow the word but not None.

    The command line parses `--set norm.factor=none` to None, before the option's type is known.
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
    """The recipe's data set; no file is opened."""
    return DATASETS.make(recipe.data.name, **recipe.data.options)


def make_network(recipe: Recipe, dataset: DataSet) -> SpikingNetwork:
    """The recipe's network for a data set, with initial weights from the recipe's seed."""
    neuron = partial(NEURONS.make, recipe.neuron.name, **recipe.neuron.options)
    norm_options = {**_threshold_option(recipe), **recipe.norm.options}
    options: dict[str, Any] = {
        "in_channels": dataset.shape(recipe.T)[-3],
        "num_classes": dataset.num_classes,
        "T": recipe.T,
        "neuron": neuron,
        "norm": lambda channels: NORMS.make(recipe.norm.name, channels, **norm_options),
    }
    with seeded(recipe.seed, "initialize"):
        return models.create(recipe.network.name, **{**options, **recipe.network.options})


def _threshold_option(recipe: Recipe) -> dict[str, Any]:
    """The option of the norm that follows from the neuron (Eq. 6), if the norm has it.

    It is the current at which the neuron fires. That is its threshold, unless the neuron multiplies
    its input first (PLIF, by 1 / tau): the membrane, not the current, gets the deviation V_th.
    """
    known = recipe.norm.name in NORMS and recipe.neuron.name in NEURONS
    if not known or "v_threshold" not in NORMS.options(recipe.norm.name):
        return {}
    neuron = NEURONS.make(recipe.neuron.name, 1, **recipe.neuron.options)
    return {"v_threshold": neuron.firing_current()}


def make_loss(recipe: Recipe) -> Loss:
    """The recipe's classification loss, with its auxiliary loss."""
    loss = LOSSES.make(recipe.loss.name, **recipe.loss.options)
    if recipe.auxiliary.name == "none":
        return loss
    return WithAuxiliary(loss, make_auxiliary(recipe))


def make_auxiliary(recipe: Recipe) -> Loss:
    """The recipe's auxiliary loss."""
    return AUXILIARIES.make(recipe.auxiliary.name, **recipe.auxiliary.options)


def make_objective(recipe: Recipe) -> Objective:
    """The recipe's regularizer."""
    return OBJECTIVES.make(recipe.objective.name, **recipe.objective.options)


def make_optimizer(recipe: Recipe, net: SpikingNetwork) -> Optimizer:
    """The recipe's optimizer over a network's parameters; each step sets its learning rate."""
    groups = groups_of(net, recipe.weight_decay, recipe.weight_decay_on)
    return OPTIMIZERS.make(recipe.optimizer.name, groups, **recipe.optimizer.options)


def make_average(recipe: Recipe, net: SpikingNetwork, batches: int) -> WeightAverage | None:
    """The recipe's average of the weights, or None.

    net: on its device, with its initial weights.
    batches: the number of optimizer steps of an epoch.
    """
    steps = batches * recipe.epochs
    return AVERAGES.make(recipe.average.name, net, steps, **recipe.average.options)


def _bad_options(recipe: Recipe, field: str) -> Sequence[Problem]:
    """Options of a part with the right types, but out of range or decided by another field."""
    part = getattr(recipe, field)
    if part.name not in PARTS[field]:
        return []  # its name is the problem
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
            where = f"network.width = {part.options['width']}"
            found.append(Problem(where, "must be positive", "--width 1"))
        return found
    arguments: dict[str, tuple[Any, ...]] = {
        "norm": (1,),
        "neuron": (1,),
        "lr_schedule": (Position(0, 1, 0, 1),),
        "optimizer": ([nn.Parameter(torch.zeros(1))],),
        "average": (nn.PReLU(), 1),  # of one parameter, not drawn
    }
    try:
        made = PARTS[field].make(part.name, *arguments.get(field, ()), **part.options)
    except UserError as error:
        problems = error.problems or (Problem("", error.title),)
        return found + [
            Problem(f"{field}: {p.where}".rstrip(": "), p.what, p.fix) for p in problems
        ]
    except ValueError as error:  # from an optimizer of PyTorch
        return [*found, Problem(field, str(error))]
    if field == "neuron":
        found += _unfit_neuron(made)
    return found


def _unfit_neuron(neuron: SpikingLayer) -> list[Problem]:
    """Options of a neuron that are not allowed in training."""
    if not neuron.carry_state:
        return []
    what = "would carry the membrane from one batch to the next"
    return [Problem("neuron.carry_state", what, "leave it out")]


def _incompatible(recipe: Recipe) -> list[Problem]:
    """Parts that are valid but do not fit together, with the reason."""
    found = []
    neuron = NEURONS.make(recipe.neuron.name, 1, **recipe.neuron.options)
    if make_objective(recipe).spec is not None and neuron.unregularized:
        where = f"objective = {recipe.objective.name} with neuron = {recipe.neuron.name}"
        found.append(Problem(where, neuron.unregularized, "objective=none"))
    if recipe.start.options.get("freeze", "nothing") != "nothing":
        found += _nothing_to_regularize(recipe)
    if recipe.start.name == "hybrid" and not isinstance(neuron, Diet):
        where = f"start = {recipe.start.name} with neuron = {recipe.neuron.name}"
        found.append(
            Problem(where, "calibrates learnt thresholds, which this neuron lacks", "neuron=diet")
        )
    if isinstance(neuron, AdaptiveWidthLIF):
        found += _nothing_to_follow(recipe)
    T = getattr(make_objective(recipe), "T", None)
    if T is not None and recipe.T != T:
        found.append(Problem(f"objective.T = {T}", "differs from the recipe's T", f"{recipe.T}"))
    loss = LOSSES.make(recipe.loss.name, **recipe.loss.options)
    ours, theirs = (getattr(part, "tau_s", None) for part in (loss, neuron))
    if ours is not None and theirs is not None and ours != theirs:
        what = f"the target must have the filter of the outputs, tau_s = {theirs}"
        found.append(Problem(f"loss.tau_s = {ours}", what, f"loss.tau_s={theirs}"))
    needs, gives = LOSSES[recipe.loss.name].needs, MODELS[recipe.network.name].gives
    if needs != gives:
        where = f"loss = {recipe.loss.name} with network = {recipe.network.name}"
        fix = f"loss={'joint' if gives == 'branches' else 'ce'}"
        found.append(Problem(where, f"the loss needs {needs}, the network gives {gives}", fix))
    return found + _unfit_auxiliary(recipe)


def _nothing_to_follow(recipe: Recipe) -> list[Problem]:
    """The problem of neurons that follow the gain of a norm that networks do not hand them."""
    norm = NORMS.make(recipe.norm.name, 1, **recipe.norm.options)
    if calls(norm, TDBatchNorm2d):
        return []
    where = f"neuron = {recipe.neuron.name} with norm = {recipe.norm.name}"
    return [Problem(where, "has no gain that its neurons could follow", "norm=tdbn")]


def _nothing_to_regularize(recipe: Recipe) -> list[Problem]:
    """The problems of a frozen backbone: no membranes to regularize, or no head to train."""
    found = []
    if make_objective(recipe).spec is not None:
        where = f"objective = {recipe.objective.name} with start.freeze = backbone"
        what = "regularizes membranes of layers that are not trained"
        found.append(Problem(where, what, "objective=none, or leave out --freeze"))
    if not hasattr(make_network(recipe, make_dataset(recipe)), "head"):
        where = f"start.freeze = backbone with network = {recipe.network.name}"
        found.append(Problem(where, "the network has no head to train", "leave out --freeze"))
    return found


def _unfit_auxiliary(recipe: Recipe) -> list[Problem]:
    """An auxiliary loss that has no steps to read, or nothing to do."""
    name, gives = recipe.auxiliary.name, MODELS[recipe.network.name].gives
    if name == "none":
        return []
    if AUXILIARIES[name].needs != gives:
        where = f"auxiliary = {name} with network = {recipe.network.name}"
        what = f"the auxiliary loss needs the outputs of every step, the network gives {gives}"
        return [Problem(where, what, "auxiliary=none")]
    if recipe.T == 1 and name != "every_step":
        what = "one step teaches another, and there is only one"
        return [Problem(f"auxiliary = {name} with T = 1", what, "auxiliary=none, or a larger T")]
    return []


def _indivisible_batch(recipe: Recipe, ranks: int) -> list[Problem]:
    """The problem of a batch that ranks and micro-batches do not divide; empty if they do."""
    size, share = recipe.batch_size, ranks * recipe.accumulate
    if ranks == 1 or min(size, share) < 1 or size % share == 0:
        return []
    what = f"is not divisible by {ranks} ranks x accumulate = {recipe.accumulate}"
    sizes = [n for n in (size - size % share, size - size % share + share) if n]
    fix = "try " + " or ".join(map(str, sizes))
    return [Problem(f"batch_size = {size}", what, fix)]


def _dry_run(recipe: Recipe, remarks: list[str]) -> list[Problem]:
    """The problems of a step without backward: two zero images through a narrow network.

    remarks: takes those of the regularizer.
    """
    dataset = make_dataset(recipe)
    network = recipe.network
    if "width" in MODELS.options(network.name):
        network = network.but(width=DRY_RUN_WIDTH)
    *time, C, H, W = dataset.shape(recipe.T)
    objective = make_objective(recipe)
    try:
        net = make_network(recipe.but(network=network), dataset)
        with torch.no_grad(), membrane_stats(net, objective.spec) as stats:
            outputs = net(torch.zeros(*time, 2, C, H, W), over_time=True)
            logits = net.readout(outputs)
            make_loss(recipe)(outputs, logits, torch.zeros(2, dtype=torch.int64))
            weighted(objective, stats, weights_of(objective, 1.0))
            for term in terms_of(objective):
                remarks += getattr(term, "remarks", lambda _: [])(stats)
    except SmallMapError as error:
        what = f"cannot take the inputs {[C, H, W]} of {dataset.name}: {error.problems[0].what}"
        return [Problem(f"network = {network.name}", what)]
    except UserError as error:
        if error.problems:
            return list(error.problems)
        return [Problem(f"network = {network.name}", error.title)]
    except (RuntimeError, ValueError) as error:
        if is_broken_connection(error):  # Batch statistics are those of all ranks, here as well.
            raise
        reason = str(error).partition("\n")[0]
        what = f"cannot take the inputs {[C, H, W]} of {dataset.name}: {reason}"
        return [Problem(f"network = {network.name}", what)]
    return []


def _rename(where: str, kind: str, field: str) -> str:
    """The place of a problem with the recipe's field instead of the table's kind."""
    return where.replace(kind.replace(" ", "-"), field, 1)
