"""Recipes for data of yours, in class folders: `rmploss train images-resnet20-rmp --data PATH`.

The training is that of the "-fast" recipes, shorter and in float32; no published number is
comparable.
"""

from rmploss.recipes.fast import SCHEDULE
from rmploss.recipes.recipe import Recipe, Use, use
from rmploss.recipes.rmp import NONE, RMP


def images(network: str, objective: Use) -> Recipe:
    """Images of a user in class folders: ResNet20 at 32x32, or ResNet18 at 224x224."""
    with_rmp, large = objective.name == "rmp", network == "resnet18"
    return Recipe(
        name=f"images-{network}" + ("-rmp" if with_rmp else ""),
        title=f"{'ResNet18' if large else 'ResNet20'} on images of yours "
        + ("with RMP-Loss" if with_rmp else "without RMP-Loss"),
        data=use("folder", size=224, augment="random-crop") if large else use("folder"),
        network=use(network),
        T=4,
        objective=objective,
        optimizer=use("sgd", momentum=0.9, nesterov=True),
        lr=0.05,
        lr_schedule=SCHEDULE,
        epochs=60,
        batch_size=64,
        weight_decay=5e-4,
        weight_decay_on="weights",
    )


def events(objective: Use) -> Recipe:
    """Recordings of a user in class folders: ResNet20 on ten frames of 48x48."""
    with_rmp = objective.name == "rmp"
    return images("resnet20", objective).but(
        name="events-resnet20" + ("-rmp" if with_rmp else ""),
        title="ResNet20 on event recordings of yours "
        + ("with RMP-Loss" if with_rmp else "without RMP-Loss"),
        data=use("event-folder"),
        T=10,
        batch_size=32,
    )


RECIPES = (
    images("resnet20", NONE),
    images("resnet20", RMP),
    images("resnet18", NONE),
    images("resnet18", RMP),
    events(NONE),
    events(RMP),
)
