"""The paper's tables beside what the run folders hold: a reader of folders, nothing else."""

import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rmploss import recipes
from rmploss.engine.build import resolve
from rmploss.engine.run import RunFolder
from rmploss.engine.train import summarize
from rmploss.errors import UserError
from rmploss.recipes import ROWS, Recipe


@dataclass(frozen=True)
class Ours:
    """What the finished runs of one recipe came to, over their seeds; accuracy in percent."""

    seeds: int
    last: str
    best: str
    error: str


@dataclass(frozen=True)
class Line:
    """One row: the recipe, the published number, ours, and the command that fills the cell."""

    recipe: str
    T: int
    published: str
    published_error: str
    ours: Ours | None
    command: str


def table(number: int, runs_dir: Path, *, pocket: bool = False) -> list[Line]:
    """The rows of a table of the paper.

    pocket: the pocket variants of its recipes instead, which no published number stands beside.
    """
    rows = [row for row in ROWS if row.table == number]
    if not rows:
        numbers = ", ".join(map(str, sorted({row.table for row in ROWS})))
        raise UserError(f"no table {number}; there are {numbers}")
    if runs_dir.exists() and not runs_dir.is_dir():
        raise UserError(f"{runs_dir} is not a folder of runs")
    found = _finished(runs_dir)
    lines = []
    for row in rows:
        name = row.recipe + recipes.SUFFIX if pocket else row.recipe
        recipe = row.answered_by(recipes.get(name))
        std = "" if row.std is None else f" ± {row.std:.2f}"
        error = "" if row.error is None else f"{row.error:.3f}"
        lines.append(
            Line(
                recipe=name,
                T=row.T,
                published="" if pocket else f"{row.accuracy:.2f}{std}",
                published_error="" if pocket else error,
                ours=_ours(found[resolve(recipe).fingerprint()]),
                command=f"rmploss train {name} --T {row.T} --seed 0 1 2",
            )
        )
    return lines


def _finished(runs_dir: Path) -> dict[str, dict[int, dict[str, float]]]:
    """Per recipe and seed, what the (newest) finished run of it came to."""
    found: dict[str, dict[int, dict[str, float]]] = defaultdict(dict)
    for recipe, metrics in _runs(runs_dir):
        if metrics and metrics[-1]["epoch"] == recipe.epochs:
            found[resolve(recipe).fingerprint()][recipe.seed] = summarize(metrics)
    return found


def _runs(runs_dir: Path) -> Iterator[tuple[Recipe, list[dict[str, float]]]]:
    for path in sorted(runs_dir.glob("*/recipe.json")):
        folder = RunFolder.open(path.parent)
        try:
            recipe = Recipe.from_json(folder.recipe())
        except UserError:
            continue  # another version's, or damaged: it answers to no row
        yield recipe, folder.metrics()


def _ours(by_seed: dict[int, dict[str, float]]) -> Ours | None:
    if not by_seed:
        return None

    def over_seeds(field: str, digits: int) -> str:
        values = [summary[field] for summary in by_seed.values()]
        mean = f"{statistics.mean(values):.{digits}f}"
        return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.{digits}f}"

    return Ours(
        len(by_seed),
        over_seeds("last_accuracy", 2),
        over_seeds("best_accuracy", 2),
        over_seeds("quantization_error", 4),
    )
