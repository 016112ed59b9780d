"""Gradients and firing rates of every recipe before its first step, as rows of docs/alive.csv.

    python tools/alive.py               the recipes that have no row there
    python tools/alive.py NAME ...      these, again

A recipe is alive if every parameter has a gradient that is not zero, and every layer of neurons
fires, in training and in evaluation mode. Recipes that start alike are measured once.
"""

import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import csv_rows
import torch
from source_map import ROOT
from torch import Tensor

from rmploss.data import DataSet
from rmploss.engine.build import make_dataset, make_loss, make_network, make_optimizer
from rmploss.engine.health import firing_rates
from rmploss.engine.starts import HybridStart
from rmploss.lifecycle import constrain
from rmploss.models import SpikingNetwork
from rmploss.randomness import seeded
from rmploss.recipes import RECIPES, SUFFIX, Recipe, get
from rmploss.recipes.fast import FAST45
from rmploss.stats import membrane_stats

TABLE = ROOT / "docs" / "alive.csv"
SAMPLES = 8
"""Images of the batch."""
CALIBRATION_STEPS = 5
"""Steps of the calibration from an ANN, here of random weights."""
WAKING = 20
"""The most steps that are waited for a gradient."""
FIELDS = (
    "recipe",
    "alike",
    "smallest",
    "smallest_of",
    "largest",
    "largest_of",
    "rate",
    "settled",
    "without",
    "silent",
    "awake",
)


@dataclass(frozen=True)
class Asleep:
    """What a method itself leaves without gradient, or silent, before the first step.

    recipes: a pattern of their names.
    parameters: patterns of the names of parameters without a gradient.
    layers: of neurons that do not fire, in either mode.
    why: whose choice it is, and how it ends.
    """

    recipes: str
    why: str
    parameters: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def is_for(self, recipe: str) -> bool:
        """Whether the name of a recipe fits the pattern."""
        return fnmatchcase(recipe, self.recipes)

    def covers(self, recipe: str, start: "Start") -> bool:
        """Whether all that is wrong with the start is named here."""
        silent = {*start.silent, *start.silent_settled}
        return (
            self.is_for(recipe)
            and all(any(fnmatchcase(n, p) for p in self.parameters) for n in start.without)
            and silent <= set(self.layers)
        )


ASLEEP = (
    Asleep(
        "*-tet-resnet19*",
        "PyTorch's initialization, as in the authors' code, and V_th = 1: the currents of the "
        "hidden linear layer are far below the threshold, and its neurons silent. Their "
        "surrogate is not 0 there, so the layer in front learns at once, and wakes them.",
        parameters=("head.2.layer.weight",),
        layers=("head.1",),
    ),
    Asleep(
        "cifar10-plif-plifnet*",
        "PyTorch's initialization, as in the authors' code, V_th = 1 and currents multiplied by "
        "1/2: the neurons of both linear layers are silent. The arctangent's slope is "
        "nowhere 0, so the first linear layer learns at once, and wakes them.",
        parameters=("fc2.layer.weight", "lif2.w"),
        layers=("lif1", "lif2"),
    ),
    Asleep(
        "imagenet-spiking-resnet*",
        "The last norm of a block starts with a gain of 0, as in the authors' runs: nothing in "
        "front of it has a gradient before that gain has changed, in the first step.",
        parameters=("layer*.conv1.*", "layer*.conv2.conv.weight"),
    ),
    Asleep(
        "*-dsr-preact-resnet18*",
        "V_th has a gradient only where a mean current is above the top of the clamp, V_th / dt = "
        "6 in the authors' constants; behind a norm that is six deviations, and weight decay alone "
        "moves most of them. In pocket size the top is 2, and a third has one at the start.",
        parameters=("*threshold",),
    ),
    Asleep(
        "cifar10-tssl-cifarnet",
        "The ten neurons of the classes hardly fire, in evaluation mode without the dropout's "
        "factor not at all. A layer with less than one spike in ten outputs has the slope of a "
        "sigmoid for all neurons, so it learns.",
        layers=("lif8",),
    ),
)
"""A recipe that is asleep and not here has a fault."""


@dataclass(frozen=True)
class Start:
    """A network before its first step.

    gradients: of each parameter that is not 0 at the start, the norm of its gradient over its own.
    without: the parameters whose gradient is 0 everywhere, or missing.
    rates: firing rates by layer, in training mode.
    settled: the same in evaluation mode, with running statistics of the same batch.
    """

    gradients: dict[str, float]
    without: tuple[str, ...]
    rates: dict[str, float]
    settled: dict[str, float]

    @property
    def silent(self) -> tuple[str, ...]:
        """The layers that do not fire in training mode."""
        return tuple(name for name, rate in self.rates.items() if not rate)

    @property
    def silent_settled(self) -> tuple[str, ...]:
        """The layers that do not fire in evaluation mode."""
        return tuple(name for name, rate in self.settled.items() if not rate)


def groups(recipes: Iterable[Recipe]) -> dict[str, list[str]]:
    """Recipes that start alike, under the name of their first; the regularizer is left out.

    What makes a start: data, network, T, neuron, norm, losses and the rule for the weights.
    """
    found: dict[str, list[str]] = {}
    first: dict[str, str] = {}
    for recipe in recipes:
        data, start = make_dataset(recipe), recipe.start
        parts = (recipe.network, recipe.T, recipe.neuron, recipe.norm, recipe.loss)
        key = repr((data.shape(recipe.T), data.num_classes, *parts, recipe.auxiliary, start.name))
        found.setdefault(first.setdefault(key, recipe.name), []).append(recipe.name)
    return found


def small() -> list[Recipe]:
    """The recipes of small data, and the pocket variants."""
    return [recipe for recipe in RECIPES.values() if not is_full_size(recipe)]


def full_size() -> list[Recipe]:
    """The published recipes, the fair and the fast ones."""
    return [recipe for recipe in RECIPES.values() if is_full_size(recipe)]


def is_full_size(recipe: Recipe) -> bool:
    """Whether a pocket variant of the recipe exists."""
    return f"{recipe.name}{SUFFIX}" in RECIPES or recipe.name.endswith(FAST45)


def start_of(recipe: Recipe) -> Start:
    """Measure a recipe on a drawn batch.

    recipe: its seed decides weights, batch and dropout.
    """
    dataset = make_dataset(recipe)
    images, labels = batch_of(recipe, dataset)
    net = network_of(recipe, dataset, images)
    loss = make_loss(recipe)
    net.train()
    with seeded(recipe.seed, "dropout"), membrane_stats(net) as stats:
        outputs = net(images, over_time=True)
        loss(outputs, net.readout(outputs), labels).backward()
    rates: dict[str, float] = {}
    for layer in stats:
        rates[layer.name] = rates.get(layer.name, 0.0) + float(layer.firing_rate.detach())
    parameters = dict(net.named_parameters())
    without = tuple(n for n, p in parameters.items() if p.grad is None or not p.grad.any())
    gradients = {
        name: float(p.grad.norm() / p.detach().norm())
        for name, p in parameters.items()
        if p.grad is not None and p.detach().any()
    }
    settle(net, images)
    return Start(gradients, without, rates, firing_rates(net, (images, labels), 1))


def batch_of(recipe: Recipe, dataset: DataSet) -> tuple[Tensor, Tensor]:
    """Drawn inputs, smooth as photographs, with mean 0 and variance 1; or events, 0 and 1."""
    *time, C, H, W = dataset.shape(recipe.T)
    with seeded(recipe.seed, "images"):
        if time:
            images = (torch.rand(*time, SAMPLES, C, H, W) < 0.1).float()
        else:
            coarse = torch.randn(SAMPLES, C, max(2, H // 4), max(2, W // 4))
            images = torch.nn.functional.interpolate(coarse, (H, W), mode="bilinear")
            images = (images - images.mean()) / images.std()
    return images, torch.arange(SAMPLES) % dataset.num_classes


def network_of(recipe: Recipe, dataset: DataSet, images: Tensor) -> SpikingNetwork:
    """The network at its start; where that is an ANN's, of the ANN's random weights."""
    net = make_network(recipe, dataset)
    if recipe.start.name == "hybrid":
        options: Any = recipe.start.options
        start = HybridStart(**{**options, "steps": CALIBRATION_STEPS})
        start(net, make_network(get(options["ann"]), dataset).state_dict(), images)
    return net


def settle(net: SpikingNetwork, images: Tensor) -> None:
    """Make running statistics those of these images."""
    norms: list[Any] = [m for m in net.modules() if hasattr(m, "running_mean")]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net.train()(images)
    for norm, momentum in zip(norms, before, strict=True):
        norm.momentum = momentum


def waking(recipe: Recipe) -> int | None:
    """The steps of training, on one batch, after which every parameter has had a gradient.

    With the recipe's optimizer, at its peak rate. None: some have none in `WAKING` steps.
    """
    dataset = make_dataset(recipe)
    images, labels = batch_of(recipe, dataset)
    net, loss = network_of(recipe, dataset, images).train(), make_loss(recipe)
    optimizer = make_optimizer(recipe, net)
    for group in optimizer.param_groups:
        group["lr"] = recipe.lr
    left = dict(net.named_parameters())
    with seeded(recipe.seed, "dropout"):
        for step in range(1, WAKING + 1):
            optimizer.zero_grad()
            outputs = net(images, over_time=True)
            loss(outputs, net.readout(outputs), labels).backward()
            left = {name: p for name, p in left.items() if p.grad is None or not p.grad.any()}
            if not left:
                return step
            optimizer.step()
            constrain(net)
    return None


def row_of(recipe: Recipe, alike: Sequence[str]) -> dict[str, str]:
    """The row of a recipe in docs/alive.csv; alike: the names of all that start as it does.

    Whether it wakes is measured in pocket size alone.
    """
    start = start_of(recipe)
    smallest = min(start.gradients, key=start.gradients.__getitem__)
    largest = max(start.gradients, key=start.gradients.__getitem__)
    rates = [min(r.values(), default=math.nan) for r in (start.rates, start.settled)]
    values = (
        recipe.name,
        " ".join(alike[1:]),
        f"{start.gradients[smallest]:.1e}",
        smallest,
        f"{start.gradients[largest]:.1e}",
        largest,
        *("" if math.isnan(rate) else f"{rate:.3g}" for rate in rates),
        len(start.without),
        " ".join(dict.fromkeys((*start.silent, *start.silent_settled))),
        (waking(recipe) or f"over {WAKING}") if start.without and recipe.pocket else "",
    )
    return dict(zip(FIELDS, map(str, values), strict=True))


def table() -> str:
    """docs/alive.csv for docs/alive.md."""
    head = "| recipe | smallest | of | largest | of | rate | in evaluation | no gradient | silent |"
    text = [head, "|---|---:|---|---:|---|---:|---:|---|---|"]
    for row in rows():
        more = len(row["alike"].split())
        without = row["without"] if row["without"] != "0" else ""
        if row["awake"]:
            without += f", until step {row['awake']}"
        cells = [
            f"`{row['recipe']}`" + (f" and {more} more" if more else ""),
            row["smallest"],
            f"`{row['smallest_of']}`",
            row["largest"],
            f"`{row['largest_of']}`",
            row["rate"],
            row["settled"],
            without,
            row["silent"],
        ]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def reasons() -> str:
    """What is not alive at its start, and why, for docs/alive.md."""
    return "\n".join(f"* `{e.recipes}`: {e.why}" for e in ASLEEP)


def main(names: list[str]) -> None:
    """Measure the recipes, the small ones first, and write each row when it is there."""
    alike = {**groups(small()), **groups(full_size())}
    for name, same in alike.items():
        if name not in names if names else name in {row["recipe"] for row in rows()}:
            continue
        row = row_of(get(name), same)
        print(*row.values(), sep="  ", flush=True)
        add(row, [*alike])


def add(row: dict[str, str], order: Sequence[str]) -> None:
    """Write a row into docs/alive.csv, beside those so far, in the order of these recipes."""

    def all_rows() -> list[dict[str, str]]:
        found = {each["recipe"]: each for each in (*rows(), row)}
        return [found[name] for name in order if name in found]

    csv_rows.update(TABLE, FIELDS, all_rows)


def rows() -> list[dict[str, str]]:
    """The rows of docs/alive.csv."""
    return csv_rows.read(TABLE)


if __name__ == "__main__":
    main(sys.argv[1:])
