"""Attack trained runs: rows of results/robustness-pocket.csv, and the table of docs/robustness.md.

    python tools/robustness.py RUN ... --transfer OTHER [--samples N]

A row for every run and size; a run that has its rows is left out. OTHER is the run whose PGD images
are tried on the others, see `rmploss eval --attack`.
"""

import argparse
import sys
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import csv_rows
from source_map import ROOT

from rmploss.analysis import Robustness
from rmploss.engine.attack import attack_run
from rmploss.engine.batches import splits_kept
from rmploss.engine.run import RunFolder
from rmploss.recipes import METHODS, SUFFIX
from rmploss.recipes.fair import PREFIX
from rmploss.report.fair_best import spread

FILE = ROOT / "results" / "robustness-pocket.csv"
SIZES = ("2/255", "8/255")
ACCURACIES = ("clean", "noise", "fgsm", "pgd", "transfer")
FIELDS = ("recipe", "seed", "T", "epochs", "train_samples", "size", "source", "steps")
MEASURED = tuple(field.name for field in fields(Robustness))
STEPS = 10


def rows_of(run: Path, source: Path, samples: int | None) -> list[dict[str, object]]:
    """The rows of a run."""
    recipe, other = RunFolder.open(run).recipe(), RunFolder.open(source).recipe()
    eps = [int(a) / int(b) for a, b in (size.split("/") for size in SIZES)]
    found = attack_run(run, eps, source=source, samples=samples, steps=STEPS, device="cpu")
    known = {
        **{name: getattr(recipe, name) for name in ("seed", "T", "epochs", "train_samples")},
        "recipe": recipe.name,
        "source": f"{other.name}-s{other.seed}",
        "steps": STEPS,
    }
    return [
        {**known, "size": size, **{k: f"{v:.6g}" for k, v in asdict(result).items()}}
        for size, result in zip(SIZES, found, strict=True)
    ]


def table() -> str:
    """Accuracies under attack by method and size: means over the seeds."""
    by_size: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in csv_rows.read(FILE):
        by_size[row["recipe"].removeprefix(PREFIX).removesuffix(SUFFIX), row["size"]].append(row)
    heads = ("method", "eps", "clean", "noise", "FGSM", "PGD", "transfer", "no gradient", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for size in SIZES:
        for name, method in METHODS.items():
            rows = by_size[name, size]
            if not rows:
                continue
            shown = (*ACCURACIES, "without_gradient")
            cells = [spread([float(row[field]) for row in rows], 1) for field in shown]
            lines.append(f"| {method.title} | {size} | {' | '.join(cells)} | {len(rows)} |")
    return "\n".join(lines)


def main(words: list[str]) -> None:
    """Attack the runs that have no row."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--transfer", type=Path, required=True)
    parser.add_argument("--samples", type=int)
    given = parser.parse_args(words)
    with splits_kept():
        for run in given.runs:
            recipe = RunFolder.open(run).recipe()
            if (recipe.name, str(recipe.seed)) in {
                (row["recipe"], row["seed"]) for row in csv_rows.read(FILE)
            }:
                continue
            add(rows_of(run, given.transfer, given.samples))


def add(new: Sequence[Mapping[str, object]]) -> None:
    """Write rows into the file, behind those so far."""
    fields = (*FIELDS, *MEASURED)
    csv_rows.update(FILE, fields, lambda: [*csv_rows.read(FILE), *new])
    for row in new:
        print(*(row[field] for field in fields), sep=",", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
