"""Whether every system learns 256 images of CIFAR-10, as rows of docs/overfit.csv.

    python tools/overfit.py                               the systems that have not learnt them yet
    python tools/overfit.py NAME ...                      these
    python tools/overfit.py NAME --rate 3 --epochs 120    by this setting, not by those of `TRIES`
    python tools/overfit.py --full                        at full size, on the GPU if there is one

Every method by its own recipe, and by the fair one, each with its own optimizer: no augmentation,
batches of 32, one cycle of the learning rate, whose peak is the recipe's times a factor. A row ends
at 95 % of an epoch's images, or with the cycle. The settings of `TRIES` are tried in their order
until one row ends so. All rows are kept: run it again to go on.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import csv_rows
import torch
from source_map import ROOT
from torch import Tensor

from rmploss.data import batches
from rmploss.engine.batches import open_splits
from rmploss.engine.build import (
    make_dataset,
    make_loss,
    make_network,
    make_objective,
    make_optimizer,
)
from rmploss.engine.evaluate import evaluate
from rmploss.engine.listener import Listener
from rmploss.engine.optimizers import Position, learning_rate
from rmploss.engine.rows import mark
from rmploss.engine.starts import HybridStart
from rmploss.engine.step import forward_backward
from rmploss.errors import UserError
from rmploss.lifecycle import constrain, evolve
from rmploss.objectives.weighting import weights_of
from rmploss.randomness import seeded
from rmploss.recipes import FAIR, METHODS, RECIPES, SUFFIX, Recipe, use
from rmploss.recipes.fair import PREFIX, WITH_RMP

TABLE = ROOT / "docs" / "overfit.csv"
SAMPLES, BATCH = 256, 32
LEARNT = 95.0
"""Percent of the training images."""
OWN = {
    "vanilla": "cifar10-resnet20",
    "rmp": "cifar10-resnet20-rmp",
    "tdbn": "cifar10-tdbn-resnet19",
    "inflor": "cifar10-inflor-resnet19",
    "im": "cifar10-im-resnet19",
    "recdis": "cifar10-recdis-resnet19",
    "stbp": "cifar10-stbp-cifarnet",
    "plif": "cifar10-plif-plifnet",
    "tet": "cifar10-tet-resnet19",
    "tssl": "cifar10-tssl-cifarnet",
    "sew": "imagenet-sew-resnet18",
    "spiking_resnet": "imagenet-spiking-resnet18",
    "joint": "cifar10-joint-resnet18",
    "diet": "cifar10-diet-vgg16",
    "diet-resnet20": "cifar10-diet-resnet20",
    "real": "cifar100-real-resnet20",
    "dsr": "cifar10-dsr-preact-resnet18",
    "liaf": "cifar10-dvs-liaf-liafnet",
    "conv3d": "cifar10-dvs-liaf-liafnet-conv3d",
}
"""A system -> the smallest of its own recipes; those of other data get CIFAR-10."""
SAME = ("fair-vanilla", "fair-rmp")
"""Fair recipes that train what "vanilla" and "rmp" train."""


@dataclass(frozen=True)
class Try:
    """A setting.

    factor: of the recipe's peak learning rate, dimensionless.
    epochs: of the cycle, of 8 steps each.
    """

    factor: float
    epochs: int


ANN = Try(1, 60)
"""The setting of an ANN that a network starts from."""
TRIES = (Try(1, 60), Try(1, 120), Try(3, 120), Try(0.3, 120), Try(10, 120))
"""The settings of a system, until it has learnt."""
HEAD = "| system | network | T | optimizer | rate | times | cycle | steps | training | evaluation |"


@dataclass(frozen=True)
class Row:
    """One trained network.

    system: a method, or "fair-" and a method.
    recipe, fingerprint: its name, and the first digits of the hash of what was trained.
    network: its name, and the factor of its channels.
    lr, factor: the peak of the learning rate, and how many times the recipe's that is.
    cycle: the epochs of the learning rate's cycle, of 8 steps each.
    steps: of the optimizer, to `LEARNT` or to the end.
    accuracy: of the last epoch's training steps, in percent; evaluated: of the same images, in
        evaluation mode afterwards.
    asleep: parameters without a gradient in the first step; awake: the first step by which all
        have had one, "" if some never had.
    cpu_s: processor time.
    """

    system: str
    recipe: str
    fingerprint: str
    network: str
    optimizer: str
    lr: str
    factor: str
    T: str
    cycle: str
    steps: str
    accuracy: str
    evaluated: str
    asleep: str
    awake: str
    cpu_s: str

    @property
    def learnt(self) -> bool:
        """Whether it ended at `LEARNT`."""
        return float(self.accuracy) >= LEARNT


COLUMNS: Mapping[str, str] = {
    **{field.name: ".*" for field in fields(Row)},
    **dict.fromkeys(("T", "cycle", "steps", "asleep"), csv_rows.COUNT),
    **dict.fromkeys(("lr", "factor", "cpu_s"), csv_rows.NUMBER),
    **dict.fromkeys(("accuracy", "evaluated"), csv_rows.PERCENT),
    "awake": f"({csv_rows.COUNT})?",
}
"""The columns of the file -> a pattern of all values."""


def systems(suffix: str = SUFFIX) -> dict[str, Recipe]:
    """The systems -> their recipes: of pocket size, or with the suffix "" of full size."""
    own = {name: RECIPES[recipe + suffix] for name, recipe in OWN.items()}
    fair = [r.name for r in FAIR if not r.name.endswith(WITH_RMP) and r.name not in SAME]
    return {**own, **{name: RECIPES[name + suffix] for name in fair}}


def overfit(recipe: Recipe, setting: Try) -> Recipe:
    """The recipe on 256 images of CIFAR-10, by a setting."""
    network = recipe.network
    if "image_size" in network.options:
        network = network.but(image_size=32)
    return recipe.but(
        data=use("cifar10", augment="none"),
        network=network,
        lr_schedule=use("onecycle"),
        lr=recipe.lr * setting.factor,
        epochs=setting.epochs,
        batch_size=BATCH,
        train_samples=SAMPLES,
        expect="",
    )


class Training:
    """A network in training, and what is known of its parameters.

    recipe: what is trained, of `overfit`.
    device: of the network and its batches.
    asleep: the names of those that never had a gradient; first: how many those were at step 1.
    """

    def __init__(self, recipe: Recipe, device: torch.device) -> None:
        self.recipe, self.device = recipe, device
        dataset = make_dataset(recipe)
        self.samples, _ = open_splits(recipe, dataset, None, Listener())
        self.net = make_network(recipe, dataset)
        if recipe.start.name == "hybrid":
            self._start_from_ann()
        self.net.to(device)
        self.loss, self.objective = make_loss(recipe), make_objective(recipe)
        self.optimizer = make_optimizer(recipe, self.net)
        self.asleep = {name for name, _ in self.net.named_parameters()}
        self.first, self.awake, self.steps, self.accuracy = 0, "", 0, 0.0

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, in its order."""
        return self._batches(self.recipe.batch_size, epoch)

    def _batches(self, size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order: dict[str, Any] = {"shuffle": True, "drop_last": True, "seed": self.recipe.seed}
        for images, labels in batches(
            self.samples, batch_size=size, epoch=epoch, workers=0, **order
        ):
            yield images.to(self.device), labels.to(self.device)

    def epoch(self, epoch: int) -> float:
        """One pass over the images; returns the accuracy of its steps in percent."""
        progress = (epoch + 1) / self.recipe.epochs
        evolve(self.net, progress)
        correct = total = 0.0
        for batch, (images, labels) in enumerate(self.batches(epoch)):
            at = Position(epoch, self.recipe.epochs, batch, SAMPLES // self.recipe.batch_size)
            for group in self.optimizer.param_groups:
                group["lr"] = learning_rate(self.recipe.lr, self.recipe.lr_schedule, at)
            right, count = self._step(images, labels, progress)
            correct, total = correct + right, total + count
        return 100 * correct / total

    def _step(self, images: Tensor, labels: Tensor, progress: float) -> tuple[float, float]:
        self.optimizer.zero_grad()
        weights = weights_of(self.objective, progress)
        terms = forward_backward(
            self.net, self.objective, images, labels, weights=weights, loss=self.loss
        )
        self.steps += 1
        self._look_for_gradients()
        if self.recipe.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        constrain(self.net)
        return float(terms.sums[2]), float(terms.sums[3])

    def _look_for_gradients(self) -> None:
        if not self.asleep:
            return
        parameters = dict(self.net.named_parameters())
        grads = {name: parameters[name].grad for name in self.asleep}
        self.asleep = {name for name, g in grads.items() if g is None or not g.any()}
        if self.steps == 1:
            self.first = len(self.asleep)
        if not self.asleep:
            self.awake = str(self.steps)

    def _start_from_ann(self) -> None:
        options: Any = self.recipe.start.options
        start = HybridStart(**options)
        source = overfit(RECIPES[str(start.source)], ANN).but(seed=self.recipe.seed)
        ann = train(source, self.device)
        print(f"(ANN: {ann.accuracy:.0f} % after {ann.steps} steps)", end=" ", flush=True)
        images, _ = next(iter(self._batches(min(start.samples, SAMPLES), epoch=0)))
        start(self.net.to(self.device), ann.net.state_dict(), images)


def train(
    recipe: Recipe,
    device: torch.device,
    say: Callable[[str], None] = lambda text: None,
) -> Training:
    """Train until an epoch's accuracy is `LEARNT`, or to the end.

    recipe: of `overfit`.
    device: to train on.
    say: gets the accuracy of every epoch.
    """
    with seeded(recipe.seed, "dropout"):
        training = Training(recipe, device)
        training.net.train()
        for epoch in range(recipe.epochs):
            training.accuracy = training.epoch(epoch)
            say(f"{epoch + 1}: {training.accuracy:.0f}")
            if training.accuracy >= LEARNT:
                break
    return training


def row_of(system: str, recipe: Recipe, setting: Try, device: torch.device) -> Row:
    """Train a system by a setting; returns its row."""
    begin = time.process_time()
    trained = overfit(recipe, setting)
    done = train(trained, device, lambda text: print(text, end=" ", flush=True))
    seen = evaluate(done.net, done.batches(0)).accuracy
    return Row(
        system,
        recipe.name,
        mark(trained),
        f"{recipe.network.name} x {recipe.network.options.get('width', 1)}",
        recipe.optimizer.name,
        f"{trained.lr:.3g}",
        f"{setting.factor:g}",
        str(recipe.T),
        str(setting.epochs),
        str(done.steps),
        f"{done.accuracy:.1f}",
        f"{seen:.1f}",
        str(done.first),
        done.awake,
        f"{time.process_time() - begin:.0f}",
    )


def rows() -> list[Row]:
    """The rows of docs/overfit.csv whose recipes are as they were.

    Raises `UserError`, which names the line, for a damaged file.
    """
    found = [Row(**row) for row in csv_rows.read(TABLE, COLUMNS)]
    known = [*systems().items(), *systems("").items()]
    recipes = {(name, recipe.name): recipe for name, recipe in known}
    return [row for row in found if _is_of(row, recipes.get((row.system, row.recipe)))]


def _is_of(row: Row, recipe: Recipe | None) -> bool:
    if recipe is None:
        return False
    setting = Try(float(row.factor), int(row.cycle))
    return mark(overfit(recipe, setting)) == row.fingerprint


def add(row: Row) -> None:
    """Write a row into docs/overfit.csv, beside those so far, in the order of the systems.

    Rows that `rows` leaves out stay in the file: they cost minutes each, and a recipe may go back.
    """
    place = {name: index for index, name in enumerate(systems())}

    def all_rows() -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [*csv_rows.read(TABLE, COLUMNS), asdict(row)]
        return sorted(found, key=lambda each: place.get(each["system"], len(place)))

    csv_rows.update(TABLE, [f.name for f in fields(Row)], all_rows)


def by_system() -> dict[tuple[str, str], list[Row]]:
    """(system, recipe) -> its rows; those of pocket size first, also where there is none."""
    found: dict[tuple[str, str], list[Row]] = {
        (name, recipe.name): [] for name, recipe in systems().items()
    }
    for row in rows():
        found.setdefault((row.system, row.recipe), []).append(row)
    return found


def table() -> str:
    """The best row of every system, for docs/overfit.md: the first that learnt, or the nearest."""
    lines = [_line(system, tried) for (system, _), tried in by_system().items()]
    return "\n".join([HEAD, "|---|---|---:|---|" + "---:|" * 6, *lines])


def _line(system: str, tried: Sequence[Row]) -> str:
    if not tried:
        return f"| `{system}` | not run |" + " |" * 8
    best = best_of(tried)
    accuracy = f"**{best.accuracy}**" if best.learnt else best.accuracy
    cells = [f"`{system}`", best.network, best.T, best.optimizer, best.lr, best.factor]
    cells += [str(int(best.cycle) * SAMPLES // BATCH), best.steps, accuracy, best.evaluated]
    return "| " + " | ".join(cells) + " |"


def best_of(tried: Sequence[Row]) -> Row:
    """The first row that learnt, or the nearest."""
    return min(tried, key=lambda row: (not row.learnt, -float(row.accuracy)))


def on_cards() -> dict[str, str]:
    """Why a pocket recipe does not learn, as the methods' cards say: its name -> the reason."""
    own = {
        name + SUFFIX: why for method in METHODS.values() for name, why in method.unlearnt.items()
    }
    fair = {PREFIX + m.name + SUFFIX: m.reservation for m in METHODS.values() if m.reservation}
    return own | fair


def reasons() -> str:
    """What has not learnt in its rows, and why, for docs/overfit.md.

    A reason on a card is not evidence of a row: without one it is marked so, and where a row
    has learnt it is left out.
    """
    cards, found = on_cards(), by_system()
    lines: list[str] = []
    for (system, recipe), tried in found.items():
        why = cards.pop(recipe, "")
        if tried and not best_of(tried).learnt:
            best = f"{best_of(tried).accuracy} % at best"
            settings = f"settings tried: {len(tried)}"
            told = f"{why} ({settings})" if why else f"{best} ({settings}); cause not measured"
            lines.append(f"* `{system}` (`{recipe}`): {told}.")
        elif not tried and why:
            lines.append(_without_row(f"`{system}` (`{recipe}`)", why))
    return "\n".join(lines + [_without_row(f"`{recipe}`", why) for recipe, why in cards.items()])


def _without_row(name: str, why: str) -> str:
    return f"* {name}, not run for the table above: {why}."


def learn(system: str, recipe: Recipe, tries: Sequence[Try], device: torch.device) -> None:
    """Try the settings that have no row yet, until one has learnt; each row is written at once."""
    for setting in tries:
        found = rows()
        present = {r.fingerprint: r for r in found if (r.system, r.recipe) == (system, recipe.name)}
        if any(row.learnt for row in present.values()) and tries is TRIES:
            return
        if mark(overfit(recipe, setting)) in present:
            continue
        print(f"\n{system}, {setting}: ", end="", flush=True)
        row = row_of(system, recipe, setting, device)
        print(row)
        add(row)


def main(arguments: list[str]) -> None:
    """Train the systems that are named, or all."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="a system")
    parser.add_argument("--full", action="store_true", help="full size")
    parser.add_argument("--rate", type=float, help="times the recipe's learning rate")
    parser.add_argument("--epochs", type=int, help="of the cycle")
    given = parser.parse_args(arguments)
    known = systems("" if given.full else SUFFIX)
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no system {', '.join(unknown)}; there are {', '.join(known)}")
    tries: Sequence[Try] = TRIES
    if given.rate or given.epochs:
        tries = (Try(given.rate or TRIES[0].factor, given.epochs or TRIES[0].epochs),)
    device = torch.device("cuda" if given.full and torch.cuda.is_available() else "cpu")
    try:
        for name in given.names or known:
            learn(name, known[name], tries, device)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
