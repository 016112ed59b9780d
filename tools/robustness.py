"""Attack trained runs: rows of results/robustness-pocket.csv, and the table of docs/robustness.md.

    python tools/robustness.py RUN ... --transfer OTHER --samples N

A row for every run and size; a run whose rows are there, of the same recipe with the same `--set`,
source and test images, is left out. OTHER is the run whose PGD images
are tried on the others, see `rmploss eval --attack`.
"""

import argparse
import math
import statistics
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import csv_rows
import scipy.stats
from source_map import ROOT

from rmploss.analysis import Robustness
from rmploss.engine.attack import attack_run
from rmploss.engine.batches import splits_kept
from rmploss.engine.build import resolve
from rmploss.engine.differences import differing_fields
from rmploss.engine.run import RunFolder
from rmploss.recipes import METHODS, SUFFIX, Recipe, get
from rmploss.recipes.fair import PREFIX
from rmploss.report.fair_best import spread

FILE = ROOT / "results" / "robustness-pocket.csv"
SIZES = ("2/255", "8/255")
ACCURACIES = ("clean", "noise", "fgsm", "pgd", "transfer")
TRAINED = ("recipe", "seed", "T", "epochs", "train_samples")
"""The columns that say which network was attacked, with "setting", see `setting_of`."""
FIELDS = (*TRAINED, "setting", "size", "source", "steps")
MEASURED = tuple(field.name for field in fields(Robustness))
COLUMNS: Mapping[str, str] = {
    **dict.fromkeys((*FIELDS, *MEASURED), ".*"),
    **dict.fromkeys(("seed", "T", "epochs", "steps", "samples"), csv_rows.COUNT),
    **dict.fromkeys((*ACCURACIES, "without_gradient"), csv_rows.PERCENT),
    "transfer": f"({csv_rows.PERCENT})?",
    "recipe": f"{PREFIX}({'|'.join(METHODS)}){SUFFIX}",
    "size": "|".join(SIZES),
}
"""The columns of the file -> a pattern of all values."""
STEPS = 10


def known_of(run: Path, source: Path, samples: int) -> dict[str, str]:
    """What a run's rows have in common, as the file has it: of the network and of the attack.

    samples: the number of test images.
    """
    recipe, other = RunFolder.open(run).recipe(), RunFolder.open(source).recipe()
    known: dict[str, object] = {"recipe": recipe.name}
    known |= {name: getattr(recipe, name) for name in TRAINED if name != "recipe"}
    known["setting"] = setting_of(recipe)
    known |= {"source": f"{other.name}-s{other.seed}", "steps": STEPS, "samples": samples}
    return {name: "" if value is None else str(value) for name, value in known.items()}


def setting_of(recipe: Recipe) -> str:
    """What a run's recipe changes in the one of its name, beside `TRAINED`, as of `--set`."""
    same = {name: getattr(recipe, name) for name in TRAINED if name != "recipe"}
    named = resolve(get(recipe.name)).but(**same, expect=recipe.expect)
    changed = differing_fields(named.to_json(), recipe.to_json())
    return " ".join(f"{name}={both.rpartition(' is now ')[2]}" for name, both in changed.items())


def is_there(run: Path, source: Path, samples: int) -> bool:
    """Whether every size has a row of the same network under the same attack."""
    known = known_of(run, source, samples)
    sizes = {row["size"] for row in csv_rows.read(FILE, COLUMNS) if known.items() <= row.items()}
    return {*SIZES} <= sizes


def rows_of(run: Path, source: Path, samples: int) -> list[dict[str, object]]:
    """The rows of a run."""
    eps = [int(a) / int(b) for a, b in (size.split("/") for size in SIZES)]
    found = attack_run(run, eps, source=source, samples=samples, steps=STEPS, device="cpu")
    return [
        {
            **known_of(run, source, samples),
            "size": size,
            **{k: "" if v is None else f"{v:.6g}" for k, v in asdict(result).items()},
        }
        for size, result in zip(SIZES, found, strict=True)
    ]


def conditions(row: Mapping[str, str]) -> tuple[str, ...]:
    """What two rows of a table have in common if only their method, seed and size differ."""
    return tuple(
        row[name] for name in ("T", "epochs", "train_samples", "source", "steps", "samples")
    )


def words_of(row: Mapping[str, str]) -> str:
    """The conditions of a row, above its table."""
    words = (
        "T = {T}, {epochs} epochs of {images} images, {samples} test images, {steps} steps of PGD"
    )
    images = row["train_samples"] or "all"
    return words.format(**row, images=images) + f", transfer from `{row['source']}`:"


def table() -> str:
    """Accuracies under attack by method and size: means over the seeds.

    Rows under other conditions have a table of their own, with a line above that says them.
    """
    apart = _by_conditions()
    if len(apart) == 1:
        return _table(*apart.values())
    return "\n\n".join(f"{words_of(rows[0])}\n\n{_table(rows)}" for rows in apart.values())


def _by_conditions() -> dict[tuple[str, ...], list[dict[str, str]]]:
    """The rows of the file by what two of one table have in common."""
    apart: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in csv_rows.read(FILE, COLUMNS):
        apart[conditions(row)].append(row)
    return apart


def differences() -> str:
    """What PGD leaves to each method, against the vanilla network, for docs/robustness.md.

    The standard error is of the deviation over seeds that all methods of a size have in common:
    s^2 = sum_i (n_i - 1) s_i^2 / nu,  nu = sum_i (n_i - 1), of n_i seeds each. The error of a
    difference of two means is s sqrt(1/n_1 + 1/n_2). p is two-sided, of Student's t with nu degrees
    of freedom, and p of all is p times the comparisons of that size (Bonferroni).
    """
    parts = [_differences(rows) for rows in _by_conditions().values()]
    return "\n\n".join(part for part in parts if part)


def _differences(of: Sequence[dict[str, str]]) -> str:
    heads = ("method", "eps", "PGD - vanilla", "standard error", "p", "p of all")
    lines: list[str] = []
    for size in SIZES:
        by_title = _by_title([row for row in of if row["size"] == size])
        left = {title: [float(row["pgd"]) for row in rows] for title, rows in by_title.items()}
        freedom = sum(len(values) - 1 for values in left.values())
        squares = sum(_squares(values) for values in left.values())
        vanilla = left.pop(METHODS["vanilla"].title, [])
        if freedom < 1 or not vanilla:
            continue
        for title, values in left.items():
            change = statistics.fmean(values) - statistics.fmean(vanilla)
            error = math.sqrt(squares / freedom * (1 / len(values) + 1 / len(vanilla)))
            p = float(2 * scipy.stats.t.sf(abs(change) / error, freedom))
            cells = (f"{change:+.1f}", f"{error:.1f}", f"{p:.2f}", f"{min(1, p * len(left)):.2f}")
            lines.append(f"| {title} | {size} | {' | '.join(cells)} |")
    head = "| " + " | ".join(heads) + " |\n|---|" + "---:|" * (len(heads) - 1)
    return "\n".join([head, *lines]) if lines else ""


def _squares(values: Sequence[float]) -> float:
    """The sum of squared differences from the mean."""
    mean = statistics.fmean(values)
    return sum((value - mean) ** 2 for value in values)


def _by_title(rows: Sequence[dict[str, str]]) -> dict[str, list[dict[str, str]]]:
    """Rows by method and setting, in the order of the methods."""
    order = list(METHODS)
    found: dict[tuple[int, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        name = row["recipe"].removeprefix(PREFIX).removesuffix(SUFFIX)
        found[order.index(name), METHODS[name].title + in_code(row["setting"])].append(row)
    return {title: found[place, title] for place, title in sorted(found)}


def in_code(setting: str) -> str:
    """A setting behind a method's title."""
    return f", `{setting}`" if setting else ""


def _table(of: Sequence[dict[str, str]]) -> str:
    heads = ("method", "eps", "clean", "noise", "FGSM", "PGD", "transfer", "no gradient", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for size in SIZES:
        for title, rows in _by_title([row for row in of if row["size"] == size]).items():
            shown = (*ACCURACIES, "without_gradient")
            cells = [spread([float(row[field]) for row in rows], 1) for field in shown]
            lines.append(f"| {title} | {size} | {' | '.join(cells)} | {len(rows)} |")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Attack the runs that have no row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--transfer", type=Path, required=True)
    parser.add_argument("--samples", type=int, required=True)
    given = parser.parse_args(words)
    with splits_kept():
        for run in given.runs:
            if not is_there(run, given.transfer, given.samples):
                add(rows_of(run, given.transfer, given.samples))


def add(new: Sequence[Mapping[str, object]]) -> None:
    """Write rows into the file, behind those so far; one of the same attack is replaced."""
    known = [{name: str(row[name]) for name in (*FIELDS, "samples")} for row in new]

    def all_rows() -> list[Mapping[str, object]]:
        found = csv_rows.read(FILE, COLUMNS)
        kept = [row for row in found if not any(each.items() <= row.items() for each in known)]
        return [*kept, *new]

    csv_rows.update(FILE, [*COLUMNS], all_rows)
    for row in new:
        print(*(row[field] for field in COLUMNS), sep=",", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
