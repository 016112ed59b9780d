"""A listener that sends the curves of a run to Weights & Biases.

The package's own settings hold: `wandb login`, WANDB_MODE=offline, WANDB_PROJECT ("rmploss" by
default), WANDB_DIR (the run folder by default). A resumed run has the id of its run folder, so that
its curves go on.
"""

import hashlib
import os
from pathlib import Path
from typing import Any

from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.recipes import Recipe
from rmploss.track.require import require
from rmploss.track.scalars import scalars

PROJECT = "rmploss"


class WeightsAndBiases(Listener):
    """Sends `scalars` of every epoch; its number is the step. `UserError` without the package."""

    def __init__(self) -> None:
        self._wandb: Any = require("wandb")
        self._run: Any = None

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """Begin the run there, or go on with it."""
        self.close()
        offline = os.environ.get("WANDB_MODE") == "offline"
        place = Path(os.environ.get("WANDB_DIR") or folder)
        before = any(place.glob(f"wandb/*run-*-{identity(folder)}"))
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            dir=str(place),
            name=folder.name,
            id=identity(folder),
            config={"recipe": recipe.to_json(), "device": device},
            # Offline it is the id alone that joins the parts of a run, when they are sent.
            resume=None if offline else "allow",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        # What is there already is known online alone.
        there = (epoch if before else 0) if offline else self._run.starting_step - 1
        for record in RunFolder.open(folder).metrics() if there < epoch else ():
            if there < record["epoch"] <= epoch:
                self.epoch(record)

    def epoch(self, record: dict[str, Any]) -> None:
        """Send its numbers."""
        self._run.log({"epoch": record["epoch"], **scalars(record)}, step=record["epoch"])

    def end(self, summary: dict[str, Any]) -> None:
        """Send the summary, and finish the run there."""
        if self._run is not None:
            self._run.summary.update(summary)
        self.close()

    def close(self) -> None:
        """Finish the run there, if one is open."""
        if self._run is not None:
            run, self._run = self._run, None
            run.finish()


def identity(folder: Path) -> str:
    """An id of a run folder that stays as long as the run does: a hash of its first event."""
    events = RunFolder.open(folder).events()
    first = next((repr(sorted(event.items())) for event in events), folder.name)
    return hashlib.sha256(f"{folder.name} {first}".encode()).hexdigest()[:16]
