"""The CIFAR rows of the paper's networks in a fraction of the epochs: "-fast" 100, "-fast45" 45.

Not the paper's training: SGD with Nesterov momentum, a learning rate of 0.1 after a linear warm-up
over a fifth of the steps, then half a cosine to 0, weight decay 5e-4 on weights only, label
smoothing 0.1, convolutions in bfloat16, and tests with the trained and with averaged weights. Rate,
warm-up, momentum, decay and precision are those of the first full-size runs (results/README.md);
label smoothing is not. 45 epochs crop and flip
only: AutoAugment and Cutout need longer. Every field is an option of any other recipe:

    rmploss train cifar10-resnet20-rmp-fast
    rmploss train cifar10-resnet20-rmp-fast45 --set weight_decay_on=all
    rmploss train cifar10-resnet20-rmp-fast --set auxiliary=self_distillation
    rmploss train cifar10-tet-resnet19 --set loss.smoothing=0.1 lr_schedule=onecycle
"""

from collections.abc import Iterable

from rmploss.recipes.recipe import Recipe, use

FAST, FAST45 = "-fast", "-fast45"
SETS = ("cifar10", "cifar100")
SCHEDULE = use("onecycle", warm_up=0.2, initial=0.0, rise="linear")
"""From 0 to the peak by a line, over a fifth of the steps, then to 0 by half a cosine."""


def fast(recipe: Recipe) -> Recipe:
    """The variant of 100 epochs."""
    return recipe.but(
        name=recipe.name + FAST,
        title=f"{recipe.title}, fast: 100 epochs",
        loss=recipe.loss.but(smoothing=0.1),
        optimizer=use("sgd", momentum=0.9, nesterov=True),
        lr=0.1,
        lr_schedule=SCHEDULE,
        average=use("ema", decay=0.999),
        epochs=100,
        weight_decay=5e-4,
        weight_decay_on="weights",
        amp="bf16",
    )


def fast45(recipe: Recipe) -> Recipe:
    """The variant of 45 epochs."""
    return fast(recipe).but(
        name=recipe.name + FAST45,
        title=f"{recipe.title}, fast: 45 epochs",
        data=recipe.data.but(augment="standard"),
        epochs=45,
    )


def fast_recipes(recipes: Iterable[Recipe]) -> tuple[Recipe, ...]:
    """Both variants of those of the recipes that are of CIFAR."""
    rows = [recipe for recipe in recipes if recipe.data.name in SETS]
    return (*map(fast, rows), *map(fast45, rows))
