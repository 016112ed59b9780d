"""Where a recipe's entries from outside of this package came from: the record, and its check."""

from collections.abc import Iterator, Sequence
from typing import Any

from rmploss.engine.build import PARTS
from rmploss.objectives import SCHEDULES
from rmploss.recipes import Recipe
from rmploss.surrogate import SURROGATES

TABLES = (*PARTS.values(), SCHEDULES, SURROGATES)
"""The registries whose names a recipe can hold, in its fields or their options."""


def origins(recipe: Recipe) -> list[dict[str, str]]:
    """The record of every entry from outside (`plugins.record`), for recipe.json; mostly empty."""
    used = [(table, getattr(recipe, field).name) for field, table in PARTS.items()]
    words = {word for field in PARTS for word in _words(getattr(recipe, field).options.values())}
    used += [(table, word) for table in TABLES for word in sorted(words)]
    found = (table.origin(name) for table, name in used)
    return list({(o["family"], o["name"]): o for o in found if o is not None}.values())


def changed(recipe: Recipe, records: Sequence[dict[str, str]]) -> list[str]:
    """Sentences about entries whose file differs from the record of the run."""
    now = {(o["family"], o["name"]): o for o in origins(recipe)}
    pairs = [(record, now.get((record["family"], record["name"]))) for record in records]
    return [
        f"{record['family']} {record['name']}: {here['file']} is not as it was when the run began"
        for record, here in pairs
        if here is not None and here["sha256"] != record["sha256"]
    ]


def _words(values: Any) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, tuple | list):
            yield from _words(value)
