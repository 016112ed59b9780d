"""Sentences of the report: how recipes differ, the effect of RMP-Loss, the paper's rows."""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean, stdev

from rmploss import recipes
from rmploss.engine.build import resolve
from rmploss.recipes import ROWS, Recipe, Row
from rmploss.recipes.recipe import Value
from rmploss.report.predictions import ClassResult
from rmploss.report.read import Group, Run

ERROR, POINTS = 0.02, 0.05
"""Changes below 2 % of the quantization error, or 0.05 points of accuracy, count as none."""


def fields(recipe: Recipe) -> dict[str, Value]:
    """The fields that decide the result, except the seed, by dotted names: `objective.k`.

    Options at their defaults are among them, whether the recipe was given with them or not.
    """
    flat: dict[str, Value] = {}
    for name, value in resolve(recipe).to_json().items():
        if isinstance(value, dict):
            flat[name] = value["name"]
            flat |= {f"{name}.{option}": x for option, x in value["options"].items()}
        elif name not in ("name", "title", "expect", "seed"):
            flat[name] = value
    return flat


def differing_fields(several: Sequence[Recipe]) -> dict[str, str]:
    """The fields in which recipes differ -> their values: `{"T": "4, 6"}`."""
    flat = [fields(recipe) for recipe in several]
    values = {key: [str(one.get(key, "–")) for one in flat] for one in flat for key in one}
    return {key: ", ".join(texts) for key, texts in values.items() if len(set(texts)) > 1}


def is_ablation(groups: Sequence[Group]) -> bool:
    """True for the paper's ablation: without and with RMP-Loss, all other fields equal."""
    several = [group.runs[0].recipe for group in groups]
    kinds = [recipe.objective.name for recipe in several]
    different = differing_fields(several)
    return kinds == ["none", "rmp"] and all(key.startswith("objective") for key in different)


def group_runs(runs: Sequence[Run]) -> list[Group]:
    """Group the runs by recipe, those without a regularizer first."""
    marks = [resolve(run.recipe).fingerprint() for run in runs]

    def rank(run: Run) -> tuple[bool, int]:
        return run.recipe.objective.name != "none", marks.index(resolve(run.recipe).fingerprint())

    parts = [(key, tuple(part)) for key, part in groupby(sorted(runs, key=rank), key=rank)]
    hue = int(parts[0][0][0])  # the first group with a regularizer always has the same color
    names = [part[0].recipe.name for _, part in parts]
    if len(set(names)) < len(names):
        names = [part[0].path.name for _, part in parts]
    groups = [
        Group(part, name, hue + i)
        for i, ((_, part), name) in enumerate(zip(parts, names, strict=True))
    ]
    if is_ablation(groups):
        labels = "without RMP-Loss", "with RMP-Loss"
        groups = [Group(g.runs, label, g.hue) for g, label in zip(groups, labels, strict=True)]
    return groups


def split_of(groups: Sequence[Group]) -> str:
    """The word for the split that the results of groups are of, `Recipe.tested_on`."""
    words = {run.recipe.tested_on for group in groups for run in group.runs}
    return " or ".join(sorted(words))


def describe_effect(groups: Sequence[Group]) -> str:
    """The difference between the groups in one or two sentences; "" for one group."""
    if not is_ablation(groups):
        different = differing_fields([group.runs[0].recipe for group in groups])
        listed = "; ".join(f"{key} ({values})" for key, values in different.items())
        return f"The recipes differ in {listed}." if listed else ""
    runs = [run for group in groups for run in group.runs]
    late = [run.path.name for run in runs if run.last.get("epoch") != run.recipe.epochs]
    q = [group.values("quantization_error") for group in groups]
    accuracy = [group.values("test_accuracy") for group in groups]
    if late or not all(q + accuracy):
        names = ", ".join(late) or "numbers of the last epoch"
        return f"The effect of RMP-Loss cannot be judged yet. Missing: {names}."
    text = _verdict(q[0], q[1], accuracy[0], accuracy[1])
    if min(map(len, accuracy)) == 1:
        text += " One seed cannot distinguish a small difference from noise."
    return text


def _verdict(q0: list[float], q1: list[float], a0: list[float], a1: list[float]) -> str:
    error, points = fmean(q1) / fmean(q0) - 1 if any(q0) else 0.0, fmean(a1) - fmean(a0)
    noise = max([POINTS, *(stdev(a) for a in (a0, a1) if len(a) > 1)])
    good = error < -ERROR, points > noise
    bad = error > ERROR, points < -noise
    errors, accuracies = _from_to(q0, q1, 3), _from_to(a0, a1, 2) + " %"
    if not any(good + bad):
        return f"RMP-Loss changed little: quantization error {errors}, accuracy {accuracies}."
    first = f"left the quantization error where it was ({errors})"
    if good[0] or bad[0]:
        verb = "lowered" if good[0] else "raised"
        first = f"{verb} the quantization error by {100 * abs(error):.0f} % ({errors})"
    second = f"left the accuracy where it was ({accuracies})"
    if abs(points) > POINTS:
        second = f"moved the accuracy no more than another seed does ({accuracies})"
    if good[1] or bad[1]:
        verb = "gained" if good[1] else "cost"
        second = f"{verb} {abs(points):.2f} points of accuracy ({accuracies})"
    joint = "but" if any(good) and any(bad) else "and"
    return f"RMP-Loss {first} {joint} {second}" + ("." if any(good) else ": here it did harm.")


def _from_to(before: list[float], after: list[float], digits: int) -> str:
    ends = dict.fromkeys(f"{fmean(values):.{digits}f}" for values in (before, after))
    return " to ".join(ends)


def paper_figure(recipe: Recipe) -> str:
    """The figures of the paper that show this network and data: "Figures 2 and 3", or ""."""
    if recipe.data.name != "cifar10":
        return ""
    return {"resnet20": "Figures 2 and 3", "resnet19": "Figure 3"}.get(recipe.network.name, "")


def classes(groups: Sequence[Group]) -> list[list[ClassResult | None]]:
    """The results of every class in all groups, the least accurate class of the last one first.

    A class that a group does not have is None there; empty if no group recorded its predictions.
    """
    tables = [
        {each.name: each for each in known.classes()} if (known := g.tested.predictions) else {}
        for g in groups
    ]
    names = dict.fromkeys(name for table in tables for name in table)
    rows = [[table.get(name) for table in tables] for name in names]

    def rank(row: list[ClassResult | None]) -> float:
        return next((each.accuracy for each in reversed(row) if each), 0.0)

    return sorted(rows, key=rank)


def published_rows(recipe: Recipe) -> list[Row]:
    """The rows of the paper's tables for a recipe; none for a changed or pocket recipe."""
    mark = resolve(recipe).fingerprint()
    known = ((row, resolve(row.with_T(recipes.get(row.recipe)))) for row in ROWS)
    return [row for row, resolved in known if resolved.fingerprint() == mark]


def changed_fields(recipe: Recipe) -> list[str] | None:
    """The fields in which a recipe differs from the package's of the same name; None: no such."""
    known = recipes.RECIPES.get(recipe.name)
    return list(differing_fields([known, recipe])) if known else None
