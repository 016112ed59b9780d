"""`rmploss list`: recipes, the entries of a table, the open readings of the paper."""

import textwrap
from dataclasses import dataclass
from typing import Literal

from tyro.conf import Positional

from rmploss import recipes

Topic = Literal[
    "recipes",
    "networks",
    "neurons",
    "surrogates",
    "norms",
    "losses",
    "objectives",
    "schedules",
    "optimizers",
    "lr-schedules",
    "data",
    "readings",
]


@dataclass(frozen=True)
class List:
    """Show recipes, or what a field of a recipe can be.

    $ rmploss list                 all recipes
    $ rmploss list objectives      the regularizers and their options
    $ rmploss list readings        what the paper leaves open, and what we chose
    """

    topic: Positional[Topic] = "recipes"
    """What to show."""

    def run(self) -> int:
        """Print it."""
        if self.topic == "recipes":
            _recipes()
        elif self.topic == "readings":
            _readings()
        else:
            _table(self.topic)
        return 0


def _recipes() -> None:
    width = max(map(len, recipes.RECIPES))
    for name, recipe in recipes.RECIPES.items():
        published = [
            f"T={row.T}: {row.accuracy:.2f} % (Table {row.table})"
            for row in recipes.ROWS
            if row.recipe == name
        ]
        print(f"{name:<{width}}  {recipe.title}")
        for line in dict.fromkeys(published):
            print(f"{'':<{width}}    published at {line}")


def _readings() -> None:
    for reading in recipes.READINGS:
        print(f"{reading.field}:  paper {reading.paper}  |  code {reading.code}")
        print(textwrap.fill(reading.reason, 88, initial_indent="    ", subsequent_indent="    "))


def _table(topic: str) -> None:
    from rmploss.data import DATASETS
    from rmploss.engine.optimizers import LR_SCHEDULES, OPTIMIZERS
    from rmploss.models import MODELS
    from rmploss.neurons import NEURONS
    from rmploss.norm import NORMS
    from rmploss.objectives import LOSSES, OBJECTIVES, SCHEDULES
    from rmploss.surrogate import SURROGATES

    tables = {
        "networks": MODELS,
        "neurons": NEURONS,
        "surrogates": SURROGATES,
        "norms": NORMS,
        "losses": LOSSES,
        "objectives": OBJECTIVES,
        "schedules": SCHEDULES,
        "optimizers": OPTIMIZERS,
        "lr-schedules": LR_SCHEDULES,
        "data": DATASETS,
    }
    table = tables[topic]
    for name in table:
        about = (table[name].__doc__ or "").strip().splitlines()[0]
        print(f"{name:<16}{about}")
        for option, spelled in table.spelled_options(name).items():
            print(f"{'':<16}  {option}: {spelled}")
