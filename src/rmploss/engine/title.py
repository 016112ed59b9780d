"""The title of a run: what is trained, and the fields in which it differs from its recipe."""

from dataclasses import fields
from typing import Any

from rmploss.recipes import RECIPES, Recipe, Use
from rmploss.recipes.recipe import FIXED
from rmploss.recipes.rmp import NAMES

PRINTED = ("T", "seed")
"""The fields that the next line of a run shows."""
FOUND = ("data.classes",)
"""Options that a run takes from its files."""
NAMED = ("data", "network", "neuron", "loss", "objective")
"""The fields that the title of a recipe tells: if another entry is in one, the title is wrong."""


def title(recipe: Recipe) -> str:
    """What a recipe trains, followed by what differs from the recipe of that name.

    "ResNet20 on CIFAR-10, changed: lr = 0.5". Options that are given at their defaults are no
    change.
    """
    listed = changes(recipe)
    return what(recipe) + (", changed: " + ", ".join(listed) if listed else "")


def what(recipe: Recipe) -> str:
    """The title of a recipe, or one of its entries if they are others than those of its title."""
    known = RECIPES.get(recipe.name)
    if known is None or all(
        getattr(recipe, name).name == getattr(known, name).name for name in NAMED
    ):
        return recipe.title
    network, data = (NAMES.get(name, name) for name in (recipe.network.name, recipe.data.name))
    parts = f"{network} on {data} {_regularizer(recipe.objective)}"
    neuron = recipe.neuron.name
    return parts if neuron == "lif" else f"{parts}, neuron {neuron}"


def changes(recipe: Recipe) -> list[str]:
    """What differs from the recipe of that name, except T and seed, in the words of `--set`."""
    known = RECIPES.get(recipe.name)
    if known is None:
        return []
    from rmploss.engine.build import resolve  # torch: the terminal does not wait for it

    before, now = resolve(known), resolve(recipe)
    return [
        words
        for field in fields(Recipe)
        if field.name not in (*FIXED, *PRINTED)
        for words in _changes(field.name, getattr(before, field.name), getattr(now, field.name))
    ]


def _regularizer(objective: Use) -> str:
    """The regularizer in words: "with RMP-Loss"."""
    words = {"none": "without RMP-Loss", "rmp": "with RMP-Loss"}
    return words.get(objective.name, f"with the regularizer {objective.name}")


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
