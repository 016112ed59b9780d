"""Pocket variants: every published recipe, reduced to minutes on two CPU cores.

Fewer images, channels and epochs, at most ten time steps, "onecycle" with a learning rate for few
steps (up to 10 times the published one), only crop and flip, and no dropout (AutoAugment, Cutout
and dropout need hundreds of epochs, not six). No published number is comparable with a pocket
result; it shows directions.
"""

from rmploss.recipes.recipe import Recipe, Use, use

SUFFIX = "-pocket"
WIDTHS = {"resnet20": 0.25, "vgg16": 0.25, "diet-resnet20": 0.25, "diet-vgg16": 0.25}
"""Factors of the channels of the smaller networks; all others get 1/8."""
RATES = {"sgd": 0.1, "adam": 0.001, "adamw": 0.002}
"""The peak of "onecycle" for each optimizer; half of it for a network that starts trained."""
DROPPING = ("cifarnet", "tssl-cifarnet", "plifnet", "plifnet-dvs", "diet-vgg16", "diet-resnet20")
"""Networks with dropout."""
NEURONS = {"dsr-lif": {"threshold": 0.1}}
"""Options for ten steps. With DSR's published threshold, for 20 steps, one spike of ten stands for
a current of 0.6 deviations; with this one for 0.2."""
SCALE = 0.6
"""Of calibrated thresholds. With the published 0.2 the narrow VGG16 knows 14 % of the images that
its ANN has learnt, with this 45 %."""
POLICIES = ("autoaugment+cutout", "standard")
SAMPLES = {
    "cifar10": (5000, 2000),
    "cifar100": (5000, 2000),
    "cifar10-dvs": (500, 200),
    "imagenet": (1000, 500),
}


def pocket(recipe: Recipe) -> Recipe:
    """The pocket variant of a published recipe."""
    train, test = SAMPLES[recipe.data.name]
    name = str(recipe.network.options.get("backbone", recipe.network.name))
    network = recipe.network.but(width=WIDTHS.get(name, 0.125))
    data, T, start = recipe.data, min(recipe.T, 10), _smaller(recipe.start)
    schedule = recipe.lr_schedule
    return recipe.but(
        name=recipe.name + SUFFIX,
        title=f"{recipe.title.removesuffix(': 100 epochs')}, pocket size",
        data=data.but(augment="standard") if data.options.get("augment") in POLICIES else data,
        network=_without_dropout(network) if name in DROPPING else network,
        T=T,
        neuron=recipe.neuron.but(**NEURONS.get(recipe.neuron.name, {})),
        lr=RATES[recipe.optimizer.name] / (1 if start.name == "none" else 2),
        lr_schedule=schedule if schedule.name == "onecycle" else use("onecycle"),
        epochs=6,
        batch_size=32 if recipe.data.name == "imagenet" else 64,
        train_samples=train,
        test_samples=test,
        amp="off",  # half precision is for GPUs
        start=start,
        pocket=True,
    )


def _without_dropout(network: Use) -> Use:
    others = {option: 0.0 for option in network.options if option.endswith("_dropout")}
    return network.but(dropout=0.0, **others)


def _smaller(start: Use) -> Use:
    """The start from the pocket variant of an ANN, calibrated on fewer images and steps."""
    if "ann" not in start.options:
        return start
    start = start.but(ann=f"{start.options['ann']}{SUFFIX}", samples=64, steps=50)
    return start if "layers" in start.options else start.but(scale=SCALE)


def fair_pocket(recipe: Recipe) -> Recipe:
    """The pocket variant of a fair recipe, shorter still, since there are many methods."""
    return pocket(recipe).but(epochs=4, test_samples=1000)
