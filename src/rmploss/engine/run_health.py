"""The health of one run: when it is looked at, what was said before, and where warnings go."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from rmploss.engine.fork import smaller_rate
from rmploss.engine.health import PROBE_STEPS, Health, firing_rates
from rmploss.engine.run import RunFolder
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

Tell = Callable[[str, Mapping[str, Any]], None]


def health_of(folder: RunFolder, recipe: Recipe, tell: Tell) -> Health:
    """The health of a run so far: no warning in its record is given again.

    tell: is called with a sentence and the fields of the event.
    """
    told = [event for event in folder.events() if event["event"] == "health"]
    losses = [
        record["train_loss"] + record["train_regularizer"]
        for record in folder.metrics()
        if {"train_loss", "train_regularizer"} <= record.keys()
    ]
    fix = f"try {smaller_rate(folder.path, recipe)}"
    return Health(tell, fix, told, losses[0] if losses else None)


def probe(
    health: Health,
    net: SpikingNetwork,
    batch: Callable[[], tuple[Tensor, Tensor]],
    parts: int,
    step: int,
) -> None:
    """Look at the firing rates, every `PROBE_STEPS` steps. All ranks do.

    batch: returns images and labels.
    parts: the number of micro-batches.
    step: completed optimizer steps.
    """
    if step % PROBE_STEPS == 0:
        health.see_rates(firing_rates(net, batch(), parts), step, whole_split=False)
