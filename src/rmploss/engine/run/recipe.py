"""The recipe of a run folder, recipe.json: hashed, read, and compared with what it was."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rmploss import plugins
from rmploss.engine.checkpoint import saved_recipe
from rmploss.engine.differences import recipe_problems
from rmploss.engine.environment import versions
from rmploss.engine.files import read_regular
from rmploss.engine.run.lines import to_json
from rmploss.errors import Problem, UserError
from rmploss.neurons import NEURONS
from rmploss.norm import NORMS
from rmploss.recipes import Recipe

RECIPE = "recipe.json"


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of a recipe; the order of its fields does not matter."""
    return hashlib.sha256(to_json(recipe, sort_keys=True).encode()).hexdigest()


def read_recipe(path: Path) -> tuple[dict[str, Any], str]:
    """The recipe in a run folder as JSON, and the SHA-256 that it had when the run began.

    path: the run folder. `UserError` if there is no recipe.
    """
    where = path / RECIPE
    try:
        document = json.loads(read_regular(where))
        recipe, expected = dict(document["recipe"]), str(document["sha256"])
        recipe_hash(recipe)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        why = "holds no recipe" if isinstance(error, KeyError | TypeError) else _why(error)
        fix = "start a new run: without the recipe the checkpoints are useless"
        raise UserError("the recipe is damaged", [Problem(str(where), why, fix)]) from None
    return recipe, expected


def read_plugged(path: Path) -> list[dict[str, str]]:
    """Where the entries of a run's recipe came from that are not of this package.

    path: a run folder whose recipe `read_recipe` reads.
    """
    return plugins.records(json.loads(read_regular(path / RECIPE)).get("plugins"))


def edits(path: Path, recipe: Mapping[str, Any], expected: str, command: str) -> list[Problem]:
    """What was changed in recipe.json: each field, or the command that began the run.

    path: the run folder.
    recipe: as it is now.
    expected: the SHA-256 of the recipe before.
    command: the command that began the run; "": not known.
    """
    where = str(path / RECIPE)
    problem = Problem(where, "was changed after the run began", "start a new run")
    before = saved_recipe(path, expected)
    if before is not None:
        return [problem, *recipe_problems(where, before, recipe)]
    if not command:
        return [problem]
    return [problem, Problem("the run began with", command, "write its values again")]


def to_recipe(stored: Mapping[str, Any], where: Path, written_by: str) -> Recipe:
    """The recipe of JSON; `UserError`, which names the fields, if it is of another version.

    Also for a run that stored no threshold of its norm where the rule for it has changed.

    stored: the recipe as JSON; fields that it lacks have their defaults.
    where: its file.
    written_by: the version that wrote it, in words.
    """
    known, ours = {field.name for field in fields(Recipe)}, versions()["rmploss"]
    problems = [
        Problem(
            f"{where}: {name}", f"unknown to rmploss {ours}", f"use {written_by}, which wrote it"
        )
        for name in stored
        if name not in known
    ]
    if problems:
        raise UserError("the recipe does not fit this version", problems)
    try:
        recipe = Recipe.from_json(stored)
    except UserError as error:
        problem = Problem(str(where), error.title, f"written by {written_by}")
        raise UserError("the recipe does not fit this version", [problem]) from None
    problems = _open_threshold(recipe, where, written_by)
    if problems:
        raise UserError("the recipe has two meanings", problems)
    return recipe


def _open_threshold(recipe: Recipe, where: Path, written_by: str) -> list[Problem]:
    """The problem of a norm whose threshold was not stored, and of which nobody can tell it.

    The first versions left it out: there it was the neuron's threshold, in later ones of them the
    current at which the neuron fires. Since both, every run stores it (docs/decisions.md, 81).
    """
    norm, neuron = recipe.norm, recipe.neuron
    if norm.name not in NORMS or neuron.name not in NEURONS or "v_threshold" in norm.options:
        return []
    if NORMS.complete(norm.name, norm.options).get("factor") in (None, "none"):
        return []  # no factor alpha V_th
    made = NEURONS.make(neuron.name, 1, **neuron.options)
    if made.firing_current() == made.v_threshold:
        return []
    what = (
        f"is not stored: {made.v_threshold:g}, the threshold of {neuron.name}, or "
        f"{made.firing_current():g}, the current at which it fires"
    )
    return [Problem(f"{where}: norm.v_threshold", what, f"use {written_by}, which wrote it")]


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
