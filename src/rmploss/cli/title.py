"""The title of a run: that of its recipe, and the fields that were changed."""

from dataclasses import fields
from typing import Any

from rmploss.recipes import RECIPES, Recipe, Use
from rmploss.recipes.recipe import FIXED

PRINTED = ("T", "seed")
"""The fields that the next line of a run shows."""


def title(recipe: Recipe) -> str:
    """The title of a recipe, followed by what differs from the recipe of that name.

    "ResNet20 on CIFAR-10, changed: objective = rmp, epochs = 2". Options that are given at their
    defaults are no change.
    """
    from rmploss.engine.build import resolve

    known = RECIPES.get(recipe.name)
    if known is None:
        return recipe.title
    before, now = resolve(known), resolve(recipe)
    changes = [
        words
        for field in fields(Recipe)
        if field.name not in (*FIXED, *PRINTED)
        for words in _changes(field.name, getattr(before, field.name), getattr(now, field.name))
    ]
    return recipe.title + (", changed: " + ", ".join(changes) if changes else "")


FOUND = ("data.classes",)
"""Options that a run takes from its files."""


def _changes(name: str, before: Any, now: Any) -> list[str]:
    """A field or its options in the words of `--set`, if it differs."""
    if before == now:
        return []
    if not isinstance(now, Use):
        return [f"{name} = {_word(now)}"]
    if now.name != before.name:
        return [f"{name} = {now.name}"]
    return [
        f"{name}.{option} = {_word(value)}"
        for option, value in now.options.items()
        if f"{name}.{option}" not in FOUND
        and (option not in before.options or before.options[option] != value)
    ]


def _word(value: Any) -> str:
    return "none" if value is None else str(value)
