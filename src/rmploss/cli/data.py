"""`rmploss data`: list the data sets that are present, and fetch others."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import DataDir
from rmploss.cli.wrapping import say, width_of, wrap
from rmploss.errors import Problem, UserError

YOURS = {
    "folder": "PATH",
    "event-folder": "PATH",
    "event-trials": "PATH",
    "tonic": "tonic:NAME",
}
"""What `--data` takes for data that a user brings."""
PLAIN = 80
"""The columns of the list outside of a terminal."""
MOST_LINES = 3
"""The largest number of missing files of a data set that are shown."""


@dataclass(frozen=True)
class Data:
    """Show which data sets are present and what is missing, or fetch one.

    $ rmploss data
    $ rmploss data fetch cifar10 --data-dir data
    """

    action: Annotated[
        Positional[Literal["show", "fetch"]], arg(metavar="show|fetch", help_behavior_hint="")
    ] = "show"
    """Show the data sets, the default; or fetch one."""
    name: Annotated[Positional[str], arg(metavar="NAME", help_behavior_hint="")] = ""
    """The data set to fetch."""
    data_dir: DataDir = None
    """The folder of the data sets."""

    def run(self) -> int:
        """Print the list, or fetch and unpack one data set."""
        if self.action == "show":
            show(self.data_dir)
            return 0
        from rmploss.data import DATASETS, data_root
        from rmploss.data.fetch import fetch

        if not self.name:
            raise UserError(
                "no data set to fetch was named; for example: rmploss data fetch cifar10"
            )
        _ = DATASETS[self.name]  # raises, with the nearest name, for an unknown one
        root = data_root(self.data_dir)
        if not DATASETS.make(self.name).missing(root):
            print(f"{self.name} is complete already")
            return 0
        fetch(self.name, root)
        print(f"{self.name} is in {root}")
        return 0


def show(data_dir: Path | None) -> None:
    """Print every data set and whether it is complete."""
    from rmploss.data import DATASETS, data_root

    root = data_root(data_dir)
    say(f"  (in {root}; --data-dir or $RMPLOSS_DATA name another folder)", 3)
    for name in DATASETS:
        if name in YOURS:
            say(f"  {name:<16}yours: rmploss train RECIPE --data {YOURS[name]}", 18)
            continue
        try:
            missing = DATASETS.make(name).missing(root)
        except UserError as error:  # of a plug-in, or an option that has no default
            missing = list(error.problems) or [Problem(name, error.title)]
        print(f"  {name:<16}{'ready' if not missing else 'missing'}")
        for line in _hints(missing, min(width_of(sys.stdout), PLAIN)):
            print(line)


def _hints(missing: Sequence[Problem], width: int) -> Iterator[str]:
    """What is missing, and once, below all that it is for, how to get it."""
    margin = 4
    wheres: dict[str, list[str]] = {}
    for problem in missing:
        what = problem.what.partition(" (")[0]
        wheres.setdefault(problem.fix, []).append(f"{problem.where}: {what}")
    for fix, lines in wheres.items():
        for line in [*lines[:MOST_LINES], *(["..."] if len(lines) > MOST_LINES else [])]:
            yield wrap(" " * margin + line, width, margin + 2)
        if fix:
            yield wrap(" " * (margin + 2) + fix, width, margin + 4)
