"""`rmploss data`: list the data sets that are present, and fetch others."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from rmploss.cli.common import DataDir
from rmploss.cli.wrapping import problem_text, say, width_of
from rmploss.errors import Problem, UserError


@dataclass(frozen=True)
class Data:
    """Show which data sets are present and what is missing, or fetch one.

    $ rmploss data
    $ rmploss data fetch cifar10 --data-dir data
    """

    action: Positional[Literal["show", "fetch"]] = "show"
    """show, or fetch."""
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
    width = width_of(sys.stdout)
    margin = 18 if width >= 80 else 4
    for name in DATASETS:
        if "path" in DATASETS.options(name):
            print(f"  {name:<16}yours: rmploss train RECIPE --data PATH")
            continue
        if name == "tonic":
            print(f"  {name:<16}of that package: rmploss train RECIPE --data tonic:NAME")
            continue
        try:
            missing = DATASETS.make(name).missing(root)
        except UserError as error:  # of a plug-in, or an option that has no default
            missing = list(error.problems) or [Problem(name, error.title)]
        print(f"  {name:<16}{'ready' if not missing else 'missing'}")
        for problem in missing:
            print(problem_text(problem, width, margin))
