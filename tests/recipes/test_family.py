"""The recipes of the other papers of the paper's authors, and of Diet-SNN: as their code trains."""

import pytest

from rmploss.neurons import NEURONS
from rmploss.neurons.inflor import InfLoR
from rmploss.recipes import METHODS, RECIPES, Recipe, use

CIFAR10, CIFAR100 = (use(f"cifar{n}", augment="autoaugment+cutout") for n in (10, 100))
DVS = use("cifar10-dvs", split="random")
SHARED = ("inflor", "im", "recdis", "real")
"""Methods whose code is one: its norm, optimizer and schedule."""


@pytest.mark.parametrize(
    "recipe", [r for n in SHARED for r in METHODS[n].recipes], ids=lambda recipe: recipe.name
)
def test_the_shared_code(recipe: Recipe) -> None:
    assert recipe.optimizer == use("sgd", momentum=0.9)
    assert (recipe.lr, recipe.lr_schedule) == (0.01, use("cosine"))
    assert recipe.weight_decay == 1e-4
    assert recipe.network == use(recipe.network.name, readout="mean")
    assert (recipe.norm, recipe.loss, recipe.start) == (use("tdbn"), use("ce"), use("none"))
    assert (recipe.amp, recipe.accumulate, recipe.clip_norm) == ("off", 1, None)
    assert (recipe.train_samples, recipe.test_samples, recipe.seed) == (None, None, 0)
    long = recipe in METHODS["im"].recipes
    assert (recipe.epochs, recipe.batch_size) == ((1000, 64) if long else (400, 128))


def test_inflor() -> None:
    found = METHODS["inflor"].recipes
    assert [(r.data, r.network.name, r.T) for r in found] == [
        (CIFAR10, "resnet19", 4), (CIFAR100, "vgg16", 5), (DVS, "resnet19", 10),
        (DVS, "resnet20", 10),
    ]  # fmt: skip
    for recipe in found:
        assert (recipe.neuron, recipe.objective) == (use("inflor"), use("none"))
        assert recipe.weight_decay_on == "all"
    neuron = NEURONS.make("inflor", 1)
    assert isinstance(neuron, InfLoR)
    assert (neuron.decay, neuron.v_threshold, neuron.reset_by) == (1.0, 0.5, 1.0)
    assert (neuron.v_reset, neuron.detach_reset) == (None, False)


def test_im() -> None:
    found = METHODS["im"].recipes
    assert [(r.data, r.network.name, r.T) for r in found] == [
        (CIFAR10, "resnet19", 4), (CIFAR100, "vgg16", 5)
    ]  # fmt: skip
    for recipe in found:
        assert (recipe.neuron, recipe.objective) == (use("evolving", decay=0.2), use("im"))
        assert recipe.weight_decay_on == "all"


def test_recdis() -> None:
    found = METHODS["recdis"].recipes
    assert [(r.data, r.network.name, r.T) for r in found] == [
        (CIFAR10, "resnet19", 4), (DVS, "resnet19", 10)
    ]  # fmt: skip
    for recipe in found:
        assert recipe.neuron == use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")
        assert recipe.objective == use("recdis")
        assert recipe.weight_decay_on == "all"


def test_real() -> None:
    found = METHODS["real"].recipes
    assert [(r.data, r.network.name, r.T) for r in found] == [
        (CIFAR100, "resnet20", 5), (CIFAR100, "vgg16", 5)
    ]  # fmt: skip
    for recipe in found:
        assert (recipe.neuron, recipe.objective) == (use("real", per="channel"), use("none"))
        assert recipe.weight_decay_on == "weights"  # the heights have none


def test_joint() -> None:
    (recipe,) = METHODS["joint"].recipes
    assert (recipe.data, recipe.T) == (CIFAR10, 4)
    assert recipe.network == use("joint", backbone="resnet18")
    assert recipe.neuron == use("lif", decay=0.25, v_threshold=0.5, surrogate="rectangle")
    assert recipe.loss == use("joint", alpha=0.1, beta=1e-6, temperature=3.0)
    assert (recipe.norm, recipe.objective) == (use("bn_step"), use("none"))
    assert recipe.optimizer == use("sgd", momentum=0.0)
    assert (recipe.lr, recipe.weight_decay, recipe.weight_decay_on) == (0.1, 5e-4, "all")
    assert recipe.lr_schedule == use("cosine")
    assert (recipe.epochs, recipe.batch_size, recipe.amp) == (300, 1024, "fp16")
    assert (recipe.accumulate, recipe.clip_norm, recipe.start) == (1, None, use("none"))


@pytest.mark.parametrize("network", ["vgg16", "resnet20"])
@pytest.mark.parametrize("data", ["cifar10", "cifar100"])
def test_diet(data: str, network: str) -> None:
    name, vgg = f"{data}-diet-{network}", network == "vgg16"
    ann, snn = RECIPES[f"{name}-ann"], RECIPES[name]
    for recipe in (ann, snn):
        assert recipe.data == use(data, augment="standard")
        assert (recipe.norm, recipe.loss, recipe.objective) == (use("none"), use("ce"), use("none"))
        assert (recipe.epochs, recipe.weight_decay, recipe.amp) == (300, 0, "off")
        assert (recipe.accumulate, recipe.clip_norm) == (1, None)

    assert (ann.T, ann.neuron, ann.start) == (1, use("relu"), use("none"))
    assert (ann.optimizer, ann.lr, ann.batch_size) == (use("adam"), 1e-3, 128)
    assert ann.lr_schedule == use("cosine")
    plain = use(f"diet-{network}", dropout=0.2)
    assert ann.network == (plain.but(head_dropout=0.5) if vgg else plain)

    assert (snn.T, snn.network) == (5, plain)
    assert (snn.optimizer, snn.lr, snn.batch_size) == (use("adam", amsgrad=True), 1e-4, 64)
    assert snn.lr_schedule == use("cosine", period=128)
    start = use("hybrid", ann=f"{name}-ann", percentile=99.7, scale=0.2, samples=512, steps=100)
    # Of a ResNet the stem is calibrated, and the other layers start at 0.4.
    assert snn.start == (start if vgg else start.but(layers=("lif1", "lif2", "lif3")))
    assert snn.neuron == (use("diet") if vgg else use("diet", threshold=0.4))
    assert {r.name for r in METHODS["diet"].recipes} >= {ann.name, snn.name}
