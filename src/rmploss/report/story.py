"""Numbers in words: what tells recipes apart, what RMP-Loss did, what answers to the paper."""

from collections.abc import Sequence
from itertools import groupby
from statistics import fmean, stdev

from rmploss import recipes
from rmploss.recipes import ROWS, Recipe, Row
from rmploss.recipes.recipe import Value
from rmploss.report.read import Group, Run

ERROR, POINTS = 0.02, 0.05
"""Less than 2 % of the quantization error, or 0.05 points of accuracy, is called no change."""


def fields(recipe: Recipe) -> dict[str, Value]:
    """What decides the result, but for the seed, by dotted names: `objective.k`."""
    flat: dict[str, Value] = {}
    for name, value in recipe.to_json().items():
        if isinstance(value, dict):
            flat[name] = value["name"]
            flat |= {f"{name}.{option}": x for option, x in value["options"].items()}
        elif name not in ("name", "title", "expect", "seed"):
            flat[name] = value
    return flat


def varied(several: Sequence[Recipe]) -> list[str]:
    """The fields in which recipes differ."""
    flat = [fields(recipe) for recipe in several]
    names = dict.fromkeys(name for one in flat for name in one)
    return [name for name in names if len({repr(one.get(name, ...)) for one in flat}) > 1]


def against(groups: Sequence[Group]) -> bool:
    """Whether these are the paper's ablation: one group without and one with RMP-Loss."""
    return [group.runs[0].recipe.objective.name for group in groups] == ["none", "rmp"]


def groups_of(runs: Sequence[Run]) -> list[Group]:
    """The runs by recipe, those without a regularizer first."""
    marks = [run.recipe.fingerprint() for run in runs]

    def rank(run: Run) -> tuple[bool, int]:
        return run.recipe.objective.name != "none", marks.index(run.recipe.fingerprint())

    parts = [tuple(part) for _, part in groupby(sorted(runs, key=rank), key=rank)]
    several = [part[0].recipe for part in parts]
    hue = int(several[0].objective.name != "none")
    groups = [Group(part, part[0].recipe.name, hue + i) for i, part in enumerate(parts)]
    if against(groups):
        labels = ["without RMP-Loss", "with RMP-Loss"]
    elif len({group.label for group in groups}) == len(groups):
        return groups
    else:
        keys = varied(several)
        labels = [
            ", ".join([r.name, *(f"{k} {v}" for k, v in fields(r).items() if k in keys)])
            for r in several
        ]
    return [Group(g.runs, label, g.hue) for g, label in zip(groups, labels, strict=True)]


def effect(groups: Sequence[Group]) -> str:
    """What came of the difference between the groups, in a sentence or two; "" for one group."""
    differ = varied([group.runs[0].recipe for group in groups])
    if not against(groups):
        return f"The recipes differ in {', '.join(differ)}." if differ else ""
    late = [run for group in groups for run in group.runs if not run.finished]
    q = [group.values("quantization_error") for group in groups]
    accuracy = [group.values("test_accuracy") for group in groups]
    if late or not all(q + accuracy):
        names = " and ".join(run.path.name for run in late) or "a run without numbers"
        return f"Too early to tell what RMP-Loss does here: there is still {names} to finish."
    text = _verdict(q[0], q[1], accuracy[0], accuracy[1])
    if others := [name for name in differ if not name.startswith("objective")]:
        text += f" But the recipes differ in {', '.join(others)} as well."
    if min(map(len, accuracy)) == 1:
        text += " One seed cannot tell a small difference from luck."
    return text


def _verdict(q0: list[float], q1: list[float], a0: list[float], a1: list[float]) -> str:
    before, after, points = fmean(q0), fmean(q1), fmean(a1) - fmean(a0)
    change = after / before - 1 if before else 0.0
    noise = max([POINTS, *(stdev(a) for a in (a0, a1) if len(a) > 1)])
    good = change < -ERROR, points > noise
    bad = change > ERROR, points < -noise
    errors = f"{before:.3f} to {after:.3f}"
    accuracies = f"{fmean(a0):.2f} to {fmean(a1):.2f} %"
    if not any(good + bad):
        return (
            f"RMP-Loss made no visible difference here: quantization error {errors}, "
            f"accuracy {accuracies}."
        )
    first = f"did not move the quantization error ({errors})"
    if good[0] or bad[0]:
        verb = "lowered" if good[0] else "raised"
        first = f"{verb} the quantization error by {abs(change):.0%}, from {errors},"
    second = f"did not visibly move the accuracy ({accuracies})"
    if good[1] or bad[1]:
        second = f"{'gained' if good[1] else 'cost'} {abs(points):.2f} points of accuracy"
        second += f" ({accuracies})"
    joint = "but" if any(good) and any(bad) else "and"
    end = "." if any(good) else ": here it did harm."
    return f"RMP-Loss {first} {joint} {second}{end}"


def published(recipe: Recipe) -> list[Row]:
    """The rows of the paper's tables that a recipe answers to; a changed or pocket one to none."""
    mark = recipe.fingerprint()
    return [r for r in ROWS if r.answered_by(recipes.get(r.recipe)).fingerprint() == mark]


def changes(recipe: Recipe) -> list[str] | None:
    """The fields in which a recipe differs from the known one of its name; None: there is none."""
    known = recipes.RECIPES.get(recipe.name)
    return varied([known, recipe]) if known else None
