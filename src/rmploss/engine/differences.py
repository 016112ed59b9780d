"""How two recipes differ, field by field, for a resume that is refused."""

from collections.abc import Mapping
from typing import Any

from rmploss.errors import Problem

ABSENT = "absent"


def differing_fields(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, str]:
    """The fields in which two stored recipes differ: `{"objective.k": "1.0 is now 0.5"}`.

    before, now: recipes as in recipe.json. Options have dotted names.
    """
    old, new = _flat(before), _flat(now)
    return {
        field: f"{old.get(field, ABSENT)} is now {new.get(field, ABSENT)}"
        for field in [*old, *(field for field in new if field not in old)]
        if old.get(field, ABSENT) != new.get(field, ABSENT)
    }


def recipe_problems(where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> list[Problem]:
    """One problem for each field that was changed since the run began."""
    fix = "write the old value again, or start a new run"
    return [
        Problem(f"{where}: {field}", values, fix)
        for field, values in differing_fields(before, now).items()
    ]


def _flat(recipe: Mapping[str, Any]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in recipe.items():
        if isinstance(value, Mapping) and isinstance(value.get("options"), Mapping):
            fields[name] = repr(value.get("name"))
            fields |= {f"{name}.{option}": repr(x) for option, x in value["options"].items()}
        else:
            fields[name] = repr(value)
    return fields
