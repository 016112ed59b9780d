"""`rmploss predict`: the classes that a trained network sees in images or recordings."""

import json as json_module
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import Device, Flag, RunDir
from rmploss.errors import UserError, printable


@dataclass(frozen=True)
class Predict:
    """Print the classes that a trained network sees in images or recordings.

    $ rmploss predict runs/NAME cat.png dog.jpg
    $ rmploss predict runs/NAME *.png --top 1 --json

    Files are of the kind of the run's data (images, or recordings in any format that it can train
    on) and are prepared exactly as its test split. An image of another size is scaled and cropped
    at its center. Of a long recording, the probabilities are the mean over its windows.
    """

    run_dir: Positional[RunDir]
    """The run folder."""
    files: Annotated[Positional[tuple[Path, ...]], arg(metavar="FILE ...", help_behavior_hint="")]
    """Images or recordings."""
    top: Annotated[int, arg(metavar="N")] = 5
    """How many classes of each file."""
    checkpoint: Literal["last", "best"] = "last"
    """The epoch: the last or the most accurate."""
    averaged: Flag = False
    """Take the averaged weights of a recipe with `average`."""
    device: Device = "auto"
    """The device to compute on."""
    json: Flag = False
    """One JSON object per file on standard output, for programs."""

    def run(self) -> int:
        """Predict and print."""
        from rmploss.engine.execution import join
        from rmploss.engine.trained import load

        if not self.files:
            run = "runs/NAME" if self.run_dir.is_file() else self.run_dir
            raise UserError(f"no file was named; for example: rmploss predict {run} a.png")
        net = load(self.run_dir, checkpoint=self.checkpoint, averaged=self.averaged)
        names = [printable(str(file)) for file in self.files]
        width = max(map(len, names))
        size = net.recipe.batch_size
        with join(self.device) as world:
            net.to(world.device)
            for start in range(0, len(self.files), size):
                some = slice(start, start + size)
                files = self.files[some]
                found = net.predict(files, self.top)
                for file, name, guesses in zip(files, names[some], found, strict=True):
                    if words := net.conversion(file):
                        print(f"note: {name}: {words}", file=sys.stderr)
                    if self.json:
                        top = [asdict(guess) for guess in guesses]
                        print(json_module.dumps({"file": str(file), "top": top}))
                    else:
                        shown = (
                            f"{printable(guess.name)} {100 * guess.probability:.1f} %"
                            for guess in guesses
                        )
                        print(f"{name:<{width}}  {'  '.join(shown)}")
        return 0
