"""`rmploss search fair-best`: every system of the fair comparison at its best, by equal tries."""

import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import DataDir, Device, Flag
from rmploss.errors import InterruptedRunError


@dataclass(frozen=True)
class Search:
    """Choose optimizer, rate, decay and own numbers of every system by tries, then report it.

    $ rmploss search fair-best --pocket
    $ rmploss search fair-best --device cuda
    $ rmploss table fair-best --pocket        what came out

    The rows in --file are its state: a run with a row is not run again. After an interruption the
    same command goes on.
    """

    which: Positional[Literal["fair-best"]]
    """The comparison."""
    pocket: Flag = False
    """The pocket size, for a CPU."""
    only: Annotated[tuple[str, ...], arg(metavar="SYSTEM ...", help_behavior_hint="")] = ()
    """These systems alone."""
    file: Annotated[
        Path | None, arg(metavar="CSV", help_behavior_hint="(default: in ./results)")
    ] = None
    """The file of rows."""
    data_dir: DataDir = None
    """The folder of the data sets."""
    runs_dir: Annotated[Path, arg(metavar="DIR")] = Path("runs/fair-best")
    """The folder for run folders; those of tries are removed."""
    device: Device = "auto"
    """The device to compute on."""
    json: Flag = False
    """One JSON object per line on standard output, for programs."""

    def run(self) -> int:
        """Run what is left; returns 0."""
        from rmploss.cli.terminal import Bar, listener
        from rmploss.engine.execution import Execution
        from rmploss.engine.fair_best import Comparison, run
        from rmploss.engine.rows import Rows
        from rmploss.recipes.fair_best import FULL, POCKET

        protocol = POCKET if self.pocket else FULL
        comparison = Comparison(protocol, Rows(self.file or Path("results") / protocol.file))
        shown = listener(self.json)
        command = ("rmploss", *sys.argv[1:])
        execution = Execution(self.data_dir, self.device, command=command)
        try:
            run(comparison, self.runs_dir, execution, shown, self.only)
        except InterruptedRunError as stop:
            raise InterruptedRunError(stop.stopped, shlex.join(command)) from None
        finally:
            if isinstance(shown, Bar):
                shown.close()
        runs = f"all runs of {', '.join(self.only)}" if self.only else "all runs"
        shown.note(f"{runs} have a row: rmploss table fair-best{' --pocket' * self.pocket}")
        return 0
