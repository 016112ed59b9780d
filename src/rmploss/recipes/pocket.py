"""Pocket variants: every recipe of the paper, small enough for two CPU cores and some minutes.

Fewer images, a quarter (ResNet19: an eighth) of the channels, few epochs, a learning rate that
fits them, crop and flip alone (AutoAugment and Cutout pay over hundreds of epochs, not over six).
A pocket result answers to no published number; it shows directions.
"""

from rmploss.recipes.recipe import Recipe

SUFFIX = "-pocket"
WIDTHS = {"resnet20": 0.25, "vgg16": 0.25, "resnet19": 0.125, "resnet18": 0.125, "resnet34": 0.125}
SAMPLES = {
    "cifar10": (5000, 2000),
    "cifar100": (5000, 2000),
    "cifar10-dvs": (500, 200),
    "imagenet": (1000, 500),
}


def pocket(recipe: Recipe) -> Recipe:
    """The pocket variant of a recipe of the paper."""
    train, test = SAMPLES[recipe.data.name]
    data = recipe.data
    return recipe.but(
        name=recipe.name + SUFFIX,
        title=f"{recipe.title}, pocket size",
        data=data.but(augment="standard") if "augment" in data.options else data,
        network=recipe.network.but(width=WIDTHS[recipe.network.name]),
        lr=0.1,
        lr_schedule="onecycle",
        epochs=6,
        batch_size=32 if recipe.data.name == "imagenet" else 64,
        train_samples=train,
        test_samples=test,
        pocket=True,
    )
