"""Attack trained runs: rows of results/robustness-pocket.csv, and the table of docs/robustness.md.

    python tools/robustness.py RUN ... --transfer OTHER --samples N

A row for every run and size; a run whose rows are there, of the same recipe with the same `--set`,
source and test images, is left out. OTHER is the run whose PGD images
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
    sizes = {row["size"] for row in csv_rows.read(FILE) if known.items() <= row.items()}
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
    apart: dict[tuple[str, ...], list[dict[str, str]]] = defaultdict(list)
    for row in csv_rows.read(FILE):
        apart[conditions(row)].append(row)
    if len(apart) == 1:
        return _table(*apart.values())
    return "\n\n".join(f"{words_of(rows[0])}\n\n{_table(rows)}" for rows in apart.values())


def in_code(setting: str) -> str:
    """A setting behind a method's title."""
    return f", `{setting}`" if setting else ""


def _table(of: Sequence[dict[str, str]]) -> str:
    by_size: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in of:
        name = row["recipe"].removeprefix(PREFIX).removesuffix(SUFFIX)
        by_size[METHODS[name].title + in_code(row["setting"]), row["size"]].append(row)
    order = [method.title for method in METHODS.values()]
    titles = {title for title, _ in by_size}
    ordered = sorted(titles, key=lambda title: (order.index(title.partition(", `")[0]), title))
    heads = ("method", "eps", "clean", "noise", "FGSM", "PGD", "transfer", "no gradient", "seeds")
    lines = ["| " + " | ".join(heads) + " |", "|---|" + "---:|" * (len(heads) - 1)]
    for size in SIZES:
        for title in ordered:
            rows = by_size.get((title, size), [])
            if not rows:
                continue
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
    """Write rows into the file, behind those so far."""
    fields = (*FIELDS, *MEASURED)
    csv_rows.update(FILE, fields, lambda: [*csv_rows.read(FILE), *new])
    for row in new:
        print(*(row[field] for field in fields), sep=",", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
