"""Whether every system learns 256 images of CIFAR-10, as rows of docs/overfit.csv.

    RMPLOSS_DATA=FOLDER python tools/overfit.py [NAME ...]

Every method by its own recipe, and by the fair one: its own optimizer, networks of pocket width, no
augmentation, batches of 32, one cycle of the pocket variant's learning rate. A row ends at 95 % of
an epoch's images, or after `EPOCHS`. Rows of the same recipe are kept: run it again to go on.
"""

import csv
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, fields
from typing import Any

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
from rmploss.engine.starts import HybridStart
from rmploss.engine.step import forward_backward
from rmploss.lifecycle import constrain, evolve
from rmploss.objectives.weighting import weights_of
from rmploss.randomness import seeded
from rmploss.recipes import FAIR, RECIPES, SUFFIX, Recipe, use
from rmploss.recipes.fair import WITH_RMP

TABLE = ROOT / "docs" / "overfit.csv"
SAMPLES, BATCH, EPOCHS = 256, 32, 60
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
"""A method -> the smallest of its own recipes; those of other data get CIFAR-10."""


@dataclass(frozen=True)
class Row:
    """One trained network.

    system: a method, or "fair-" and a method.
    recipe, fingerprint: its name, and the first digits of the hash of what was trained.
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
    lr: float
    T: int
    steps: int
    accuracy: str
    evaluated: str
    asleep: int
    awake: str
    cpu_s: str


def systems() -> dict[str, Recipe]:
    """The rows -> the recipe that is trained."""
    own = {name: overfit(RECIPES[recipe + SUFFIX]) for name, recipe in OWN.items()}
    fair = [recipe.name for recipe in FAIR if not recipe.name.endswith(WITH_RMP)]
    return {**own, **{name: overfit(RECIPES[name + SUFFIX]) for name in fair}}


def overfit(recipe: Recipe) -> Recipe:
    """The recipe on 256 images of CIFAR-10."""
    network = recipe.network
    if "image_size" in network.options:
        network = network.but(image_size=32)
    return recipe.but(
        data=use("cifar10", augment="none"),
        network=network,
        lr_schedule=use("onecycle"),
        epochs=EPOCHS,
        batch_size=BATCH,
        train_samples=SAMPLES,
        expect="",
    )


class Training:
    """A network in training, and what is known of its parameters.

    asleep: the names of those that never had a gradient; first: how many those were at step 1.
    """

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        dataset = make_dataset(recipe)
        self.samples, _ = open_splits(recipe, dataset, None, Listener())
        self.net = make_network(recipe, dataset)
        if recipe.start.name == "hybrid":
            self._start_from_ann()
        self.loss, self.objective = make_loss(recipe), make_objective(recipe)
        self.optimizer = make_optimizer(recipe, self.net)
        self.asleep = {name for name, _ in self.net.named_parameters()}
        self.first, self.awake, self.steps, self.accuracy = 0, "", 0, 0.0

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of an epoch, in its order."""
        return self._batches(self.recipe.batch_size, epoch)

    def _batches(self, size: int, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        order: dict[str, Any] = {"shuffle": True, "drop_last": True, "seed": self.recipe.seed}
        return iter(batches(self.samples, batch_size=size, epoch=epoch, workers=0, **order))

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
        ann = train(overfit(RECIPES[str(start.source)]).but(seed=self.recipe.seed))
        images, _ = next(iter(self._batches(min(start.samples, SAMPLES), epoch=0)))
        start(self.net, ann.net.state_dict(), images)


def train(recipe: Recipe, say: Callable[[str], None] = lambda text: None) -> Training:
    """Train until an epoch's accuracy is `LEARNT`."""
    with seeded(recipe.seed, "dropout"):
        training = Training(recipe)
        training.net.train()
        training.accuracy = 0.0
        for epoch in range(recipe.epochs):
            training.accuracy = training.epoch(epoch)
            say(f"{epoch + 1}: {training.accuracy:.0f}")
            if training.accuracy >= LEARNT:
                break
    return training


def row_of(system: str, recipe: Recipe) -> Row:
    """Train a system; returns its row."""
    begin = time.process_time()
    done = train(recipe, lambda text: print(text, end=" ", flush=True))
    seen = evaluate(done.net, done.batches(0)).accuracy
    options = recipe.network.options
    return Row(
        system,
        recipe.name,
        recipe.fingerprint()[:12],
        f"{recipe.network.name} x {options.get('width', 1)}",
        recipe.optimizer.name,
        recipe.lr,
        recipe.T,
        done.steps,
        f"{done.accuracy:.1f}",
        f"{seen:.1f}",
        done.first,
        done.awake,
        f"{time.process_time() - begin:.0f}",
    )


def main(names: list[str]) -> None:
    """Train the systems without a row of their present recipe, or those that are named."""
    kept = {}
    if TABLE.is_file():
        with TABLE.open(encoding="utf-8") as lines:
            kept = {row["system"]: row for row in csv.DictReader(lines)}
    wanted = systems()
    for name, recipe in wanted.items():
        if names and name not in names:
            continue
        if name in kept and kept[name]["fingerprint"] == recipe.fingerprint()[:12]:
            continue
        print(f"\n{name}: ", end="", flush=True)
        kept[name] = {k: str(v) for k, v in asdict(row_of(name, recipe)).items()}
        print(kept[name])
        with TABLE.open("w", encoding="utf-8", newline="") as out:
            writer: csv.DictWriter[str] = csv.DictWriter(
                out, [f.name for f in fields(Row)], lineterminator="\n"
            )
            writer.writeheader()
            writer.writerows(kept[n] for n in wanted if n in kept)


if __name__ == "__main__":
    main(sys.argv[1:])
