"""Recipes: every row of the paper's tables as plain data, with its published number.

rmp.py       the paper's networks, with and without RMP-Loss
tables.py    the published numbers
small.py     runs for anywhere: digits, event recordings
pocket.py    the small variant of each of the paper's recipes (name + "-pocket")
readings.py  what the paper leaves open, and both readings
"""

from rmploss.errors import UserError, unknown
from rmploss.recipes import rmp, small
from rmploss.recipes.pocket import SUFFIX, pocket
from rmploss.recipes.readings import READINGS, Mode, Reading, read_as
from rmploss.recipes.recipe import Recipe, Use, Value, apply, counted, override, problems_in, use
from rmploss.recipes.tables import ROWS, Row

__all__ = [
    "READINGS",
    "RECIPES",
    "ROWS",
    "SUFFIX",
    "Mode",
    "Reading",
    "Recipe",
    "Row",
    "Use",
    "Value",
    "apply",
    "counted",
    "get",
    "override",
    "problems_in",
    "read_as",
    "use",
]

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe for recipe in (*small.RECIPES, *rmp.RECIPES, *map(pocket, rmp.RECIPES))
}
"""All recipes by name."""


def get(name: str) -> Recipe:
    """A recipe by name; an unknown one raises `UserError` with the nearest that exists."""
    if name not in RECIPES:
        problem = unknown("recipe", name, RECIPES, see="rmploss list")
        raise UserError("no such recipe", [problem])
    return RECIPES[name]
