"""Recipes: every row of the paper's tables as data, with its published number.

rmp.py       the paper's networks, with and without RMP-Loss
tables.py    the published numbers of RMP-Loss
methods/     all methods of the paper's tables: cards, recipes, published numbers
fair.py      every method on one protocol, without and with RMP-Loss
fast.py      the CIFAR rows of the paper's networks in 100 and in 45 epochs
small.py     small runs: digits, event recordings
own.py       data of a user's own, in class folders
pocket.py    the small variant of the recipes above (name + "-pocket")
expected.py  measured results and costs of the recipes
readings.py  the open points of the paper, and both readings of each
"""

from rmploss.errors import UserError, unknown
from rmploss.recipes import own, small
from rmploss.recipes.expected import expectation
from rmploss.recipes.fair import fair_recipes
from rmploss.recipes.fast import FAST45, fast_recipes
from rmploss.recipes.method import Method
from rmploss.recipes.methods import METHODS
from rmploss.recipes.pocket import SUFFIX, fair_pocket, pocket
from rmploss.recipes.readings import READINGS, Mode, Reading, read_as
from rmploss.recipes.recipe import (
    Recipe,
    Use,
    Value,
    apply,
    override,
    problem_count,
    problems_in,
    use,
)
from rmploss.recipes.tables import Row
from rmploss.registry import Registry

__all__ = [
    "FAIR",
    "FAST",
    "METHODS",
    "PUBLISHED",
    "READINGS",
    "RECIPES",
    "ROWS",
    "SUFFIX",
    "Method",
    "Mode",
    "Reading",
    "Recipe",
    "Row",
    "Use",
    "Value",
    "apply",
    "get",
    "override",
    "problem_count",
    "problems_in",
    "read_as",
    "use",
]

PUBLISHED = tuple(recipe for method in METHODS.values() for recipe in method.recipes)
"""The recipes of the papers."""
FAIR = fair_recipes(METHODS.values())
"""The fair comparison."""
FAST = fast_recipes(METHODS["rmp"].recipes)
"""The CIFAR rows of the paper's networks in 100 and in 45 epochs."""
RECIPES: Registry[Recipe] = Registry(
    "recipe",
    {},
    family="recipe",
    needs=("name", "fingerprint"),
    given={
        recipe.name: recipe.but(expect=expectation(recipe.name))
        for recipe in (
            *small.RECIPES,
            *own.RECIPES,
            *PUBLISHED,
            *FAIR,
            *FAST,
            *map(pocket, PUBLISHED),
            *map(fair_pocket, FAIR),
            # In pocket size, 100 and 45 epochs are the same.
            *(pocket(recipe) for recipe in FAST if not recipe.name.endswith(FAST45)),
        )
    },
)
"""All recipes by name."""
ROWS: tuple[Row, ...] = tuple(row for method in METHODS.values() for row in method.rows)
"""All published numbers."""


def get(name: str) -> Recipe:
    """A recipe by name. Raises `UserError`, with the nearest name, for an unknown one."""
    if name not in RECIPES:
        problem = unknown("recipe", name, RECIPES, see="rmploss list all")
        raise UserError("no such recipe", [problem])
    return RECIPES[name]
