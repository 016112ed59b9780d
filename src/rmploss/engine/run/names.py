"""The names of run folders."""

import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmploss.engine.run.recipe import recipe_hash
from rmploss.errors import Problem, UserError


def folder_name(name: str, recipe: Mapping[str, Any]) -> str:
    """The name of the first run folder of a recipe.

    name: of the run, for people.
    recipe: the recipe as JSON, with its `seed`.
    """
    return f"{name}-s{recipe['seed']}-{recipe_hash(recipe)[:4]}"


def require_free(path: Path) -> None:
    """Raise `UserError` if there is something at the place of a new run folder."""
    if path.exists() or path.is_symlink():
        fix = "--resume auto goes on with it; or another --name"
        raise UserError("the run folder exists", [Problem(str(path), "is there", fix)])


def check_name(name: str) -> None:
    """Raise `UserError` for a name that is no safe name of a folder."""
    problems = [
        Problem(f"name = {name!r}", what, "letters, digits, '-', '_' and '.' are always right")
        for what, wrong in {
            "is empty": not name,
            f"has {len(name)} characters, more than 100": len(name) > 100,
            "holds a path separator": "/" in name or "\\" in name,
            "holds a control character": any(unicodedata.category(c)[0] == "C" for c in name),
            "begins with '.' or '-'": name.startswith((".", "-")),
            "begins or ends with a blank": name != name.strip(),
        }.items()
        if wrong
    ]
    if problems:
        raise UserError("bad name of a run", problems)
