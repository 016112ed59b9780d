"""What the numbers say, in words: differences of recipes, what RMP-Loss did, what was published."""

import shlex
from collections.abc import Sequence

from rmploss import recipes
from rmploss.errors import UserError
from rmploss.recipes import ROWS, Recipe, Row
from rmploss.recipes.recipe import Use, Value
from rmploss.report.read import Group, Run, Spread

VISIBLE_ERROR, VISIBLE_POINTS = 0.02, 0.05
"""Changes below 2 % of the quantization error or 0.05 points of accuracy are called none."""


def fields(recipe: Recipe) -> dict[str, Value]:
    """A recipe's fields by the dotted names of `--set`, but for names, texts and the seed."""
    flat: dict[str, Value] = {}
    for name in recipe.to_json():
        value = getattr(recipe, name)
        if isinstance(value, Use):
            options = {f"{name}.{option}": x for option, x in value.options.items()}
            flat |= {name: value.name, **options}
        elif name not in ("name", "title", "expect", "seed"):
            flat[name] = value
    return flat


def spell(value: Value) -> str:
    """A value as it is typed on the command line."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def varied(several: Sequence[Recipe]) -> list[str]:
    """The fields in which recipes differ."""
    flat = [fields(recipe) for recipe in several]
    names = dict.fromkeys(name for one in flat for name in one)
    return [name for name in names if len({repr(one.get(name, ...)) for one in flat}) > 1]


def labels(several: Sequence[Recipe]) -> list[str]:
    """Short names that tell recipes apart."""
    kinds = [recipe.objective.name for recipe in several]
    if sorted(kinds) == ["none", "rmp"]:
        return [f"{'with' if kind == 'rmp' else 'without'} RMP-Loss" for kind in kinds]
    names = [recipe.name for recipe in several]
    if len(set(names)) == len(names):
        return names
    keys = varied(several)
    return [
        recipe.name + "".join(f", {k} {spell(v)}" for k, v in fields(recipe).items() if k in keys)
        for recipe in several
    ]


def title(several: Sequence[Recipe]) -> str:
    """A heading for all of them."""
    kinds = {recipe.objective.name for recipe in several}
    plain = dict.fromkeys(
        r.title.replace(" without RMP-Loss", "").replace(" with RMP-Loss", "") for r in several
    )
    if kinds == {"none", "rmp"} and len(plain) == 1:
        text = f"{next(iter(plain))}, with and without RMP-Loss"
    else:
        text = "; ".join(dict.fromkeys(recipe.title for recipe in several))
    return text[:1].upper() + text[1:]


def effect(groups: Sequence[Group]) -> str:
    """One or two sentences on what tells the groups apart and what came of it; "" for one group."""
    several = [one.recipe for one in groups]
    if len(groups) < 2:
        return ""
    if sorted(recipe.objective.name for recipe in several) != ["none", "rmp"]:
        return f"The recipes differ in {', '.join(varied(several))}."
    late = [run for one in groups for run in one.runs if not run.finished]
    if late:
        run = late[0]
        where = f"{run.path.name} stands at epoch {run.epoch} of {run.recipe.epochs}"
        return f"It is too early to say what RMP-Loss does here: {where}."
    error = [one.over_seeds(lambda run: run.last("quantization_error")) for one in groups]
    accuracy = [one.over_seeds(lambda run: run.last("test_accuracy")) for one in groups]
    if not all(error) or not all(accuracy):
        return "What RMP-Loss did cannot be told: a run holds no numbers of its last epoch."
    others = [name for name in varied(several) if name.split(".")[0] != "objective"]
    caution = f" But the recipes differ in {', '.join(others)} as well." if others else ""
    if any(len(one.runs) == 1 for one in groups):
        caution += " One seed tells little of small differences; repeat with others."
    return _verdict(*filter(None, error), *filter(None, accuracy)) + caution


def _verdict(error0: Spread, error1: Spread, accuracy0: Spread, accuracy1: Spread) -> str:
    change = error1.mean / error0.mean - 1 if error0.mean else 0.0
    points = accuracy1.mean - accuracy0.mean
    noise = max(VISIBLE_POINTS, accuracy0.std or 0, accuracy1.std or 0)
    errors = f"{error0.mean:.3f} to {error1.mean:.3f}"
    accuracies = f"{accuracy0.mean:.2f} to {accuracy1.mean:.2f} %"
    good = [change < -VISIBLE_ERROR, points > noise]
    bad = [change > VISIBLE_ERROR, points < -noise]
    if not any(good + bad):
        return (
            "RMP-Loss made no visible difference here: the quantization error went from "
            f"{errors}, the accuracy from {accuracies}."
        )
    first = f"left the quantization error where it was ({errors})"
    if good[0] or bad[0]:
        verb = "lowered" if good[0] else "raised"
        first = f"{verb} the quantization error by {abs(change):.0%}, from {errors}"
    second = f"left the accuracy where it was ({accuracies})"
    if good[1] or bad[1]:
        verb = "gained" if good[1] else "cost"
        second = f"{verb} {abs(points):.2f} points of accuracy ({accuracies})"
    joint = "but" if any(good) and any(bad) else "and"
    harm = ": here it did harm" if any(bad) and not any(good) else ""
    return f"RMP-Loss {first}, {joint} {second}{harm}."


def published(recipe: Recipe) -> list[Row]:
    """The rows of the paper's tables that a recipe answers to."""
    mark = recipe.fingerprint()
    same = [row for row in ROWS if row.answered_by(recipes.get(row.recipe)).fingerprint() == mark]
    return [] if recipe.pocket else same


def standing(recipe: Recipe) -> str:
    """Why a recipe answers to no published number; "" if it does."""
    if published(recipe):
        return ""
    if recipe.pocket:
        return "Pocket size: answers to no published number."
    base = recipes.RECIPES.get(recipe.name)
    changed = varied([base, recipe]) if base else []
    return (
        f"Changed from the recipe {recipe.name} in {', '.join(changed)}: " if changed else ""
    ) + "Answers to no published number."


def command(run: Run) -> str:
    """What to type to repeat a run: the words it was started with, or what they would have been."""
    if run.start.get("command"):
        return shlex.join(map(str, run.start["command"]))
    recipe, base = run.recipe, recipes.RECIPES.get(run.recipe.name)
    if base:
        theirs = fields(base)
        changes = {k: v for k, v in fields(recipe).items() if (v, k) != (theirs.get(k, ...), k)}
        words = ["rmploss", "train", recipe.name, "--seed", str(recipe.seed)]
        words += ["--set", *(f"{k}={spell(v)}" for k, v in changes.items())] if changes else []
        try:
            if recipes.override(base, changes).fingerprint() == recipe.fingerprint():
                return shlex.join(words)
        except UserError:
            pass
    return "started from Python; its recipe is below, and in recipe.json"
