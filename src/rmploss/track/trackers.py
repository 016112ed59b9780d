"""The trackers by name, each with its errors caught."""

import importlib
from collections.abc import Callable

from rmploss.engine.listener import Listener
from rmploss.errors import UserError, unknown
from rmploss.track.listeners import Guarded

TRACKERS = {
    "tensorboard": "rmploss.track.tensorboard:TensorBoard",
    "wandb": "rmploss.track.wandb:WeightsAndBiases",
}


def tracker(name: str, note: Callable[[str], None]) -> Listener:
    """The listener of a tracker, which never ends a run.

    name: "tensorboard" or "wandb".
    note: is told, in one line, that the tracker failed.
    Raises `UserError` for another name, and if its package is not installed.
    """
    if name not in TRACKERS:
        raise UserError("unknown tracker", [unknown("--track", name, TRACKERS)])
    module, _, attribute = TRACKERS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    return Guarded(name, kind(), note)
