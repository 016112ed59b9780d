"""Small recipes: the demonstration on bundled digits, and event recordings.

No published number is comparable with them.
"""

from rmploss.recipes.recipe import Recipe, Use, use
from rmploss.recipes.rmp import NONE

STRONG = use("rmp", k=1.0, p=2.0)
"""Ten times the paper's k, since a short run has few steps instead of 400 epochs."""


def digits(objective: Use) -> Recipe:
    """The demonstration, with or without RMP-Loss."""
    with_rmp = objective.name == "rmp"
    return Recipe(
        name="digits-rmp" if with_rmp else "digits",
        title="a small ConvNet on scikit-learn's digits "
        + ("with RMP-Loss" if with_rmp else "without RMP-Loss"),
        data=use("digits"),
        network=use("convnet"),
        T=4,
        objective=objective,
        lr=0.1,
        lr_schedule=use("onecycle"),
        epochs=8,
        batch_size=64,
    )


def events(
    data: str, title: str, *, T: int, epochs: int, network: Use, batch: int, lr: float = 0.1
) -> Recipe:
    """A small run on event data."""
    return Recipe(
        name=f"{data}-{network.name}-rmp",
        title=title,
        data=use(data),
        network=network,
        T=T,
        objective=STRONG,
        lr=lr,
        lr_schedule=use("onecycle"),
        epochs=epochs,
        batch_size=batch,
    )


RECIPES = (
    digits(NONE),
    digits(STRONG),
    events(
        "digits-events",
        "a small ConvNet on digits seen by a simulated event camera",
        T=6,
        epochs=8,
        network=use("convnet"),
        batch=64,
    ),
    events(
        "nmnist",
        "a small ConvNet on N-MNIST recordings",
        T=10,
        epochs=10,
        network=use("convnet"),
        batch=32,
    ),
    events(
        "dvs128-objects",
        "ResNet20 (1/4 width) on DVS128 recordings of desk objects, split by time",
        T=10,
        epochs=5,
        network=use("resnet20", width=0.25),
        batch=16,
        lr=0.03,
    ),
)
