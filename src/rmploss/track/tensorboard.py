"""A listener that writes the curves of a run for TensorBoard, into its folder.

    tensorboard --logdir runs

The files are in `RUN/tensorboard/`. A resumed run writes another file there, which begins by
dropping the epochs after its checkpoint; epochs whose points were lost are written again.
"""

import json
from pathlib import Path
from typing import Any

from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.recipes import Recipe
from rmploss.track.require import require
from rmploss.track.scalars import scalars

FOLDER = "tensorboard"
"""Below the run folder."""
CURVE = "test/accuracy"
"""A curve that every epoch has."""


class TensorBoard(Listener):
    """Writes `scalars` of every epoch against its number; `UserError` without the package."""

    def __init__(self) -> None:
        require("tensorboard")
        self._make = require("torch.utils.tensorboard").SummaryWriter
        self._writer: Any = None

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """Open a file of the run."""
        self.close()
        place = folder / FOLDER
        written = min(last_epoch(place), epoch)
        self._writer = self._make(str(place), purge_step=epoch + 1 if epoch else None)
        if not epoch:
            text = json.dumps(recipe.to_json(), indent=2)
            self._writer.add_text("recipe", f"```json\n{text}\n```", 0)
        for record in RunFolder.open(folder).metrics() if epoch > written else ():
            if written < record["epoch"] <= epoch:
                self.epoch(record)

    def epoch(self, record: dict[str, Any]) -> None:
        """Write its numbers, to the disk at once."""
        for name, value in scalars(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def end(self, summary: dict[str, Any]) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, if one is open."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def last_epoch(place: Path) -> int:
    """The last epoch of the files in a folder, read by TensorBoard; 0 without any."""
    if not place.is_dir():
        return 0
    events = require("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(place))
    read.Reload()
    return read.Scalars(CURVE)[-1].step if CURVE in read.Tags()["scalars"] else 0
