"""The expected results of recipes are those of their rows in results/ and benchmarks/."""

import csv
from collections import defaultdict
from pathlib import Path
from statistics import fmean, stdev

import pytest

from rmploss.recipes import RECIPES, Value, apply, get, read_as
from rmploss.recipes.expected import EPOCHS, MEASURED, Measured, expectation
from rmploss.report.recorded import rmp_amplitude

ROOT = Path(__file__).parents[2]
SHARED_MACHINE = "pocket-table1-2xEPYC.csv"
"""A file whose `train_s` means nothing (docs/log.md)."""
ENTRIES = [(file, name) for file, runs in MEASURED.items() for name in runs]
Rows = list[dict[str, str]]


def rows_of(file: str) -> dict[str, Rows]:
    """The rows of a file of results/, by recipe, without those of changed recipes (--set)."""
    found: dict[str, Rows] = defaultdict(list)
    with (ROOT / "results" / file).open() as lines:
        for row in csv.DictReader(lines):
            if "--set" not in row["command"].split():
                found[row["recipe"]].append(row)
    return found


def mean_of(rows: Rows, field: str) -> float | None:
    """The mean of the recorded values, rounded as an entry is typed; None if there are none."""
    values = [float(row[field]) for row in rows if row.get(field)]
    return float(f"{fmean(values):.0f}") if values else None


def measured(file: str, rows: Rows, backend: str) -> Measured:
    """The entry that the rows of one recipe make."""
    accuracies = [float(row["last_accuracy"]) for row in rows]
    return Measured(
        accuracy=float(f"{fmean(accuracies):.2f}"),
        std=float(f"{stdev(accuracies):.2f}") if len(rows) > 1 else None,
        seeds=len(rows),
        wall_s=None if file == SHARED_MACHINE else mean_of(rows, "train_s"),
        cpu_s=mean_of(rows, "train_cpu_s"),
        backend=backend,
    )


@pytest.mark.parametrize(("file", "name"), ENTRIES)
def test_an_entry_is_what_its_rows_say(file: str, name: str) -> None:
    entry, rows = MEASURED[file][name], rows_of(file)[name]
    assert entry == measured(file, rows, entry.backend)


@pytest.mark.parametrize(("file", "name"), ENTRIES)
def test_the_rows_are_of_the_recipe_as_it_stands(file: str, name: str) -> None:
    recipe = get(name)
    fields = ("T", "epochs", "train_samples", "test_samples")
    stands = [str(getattr(recipe, field) or "all") for field in fields]
    for row in rows_of(file)[name]:
        assert [row[field] for field in fields] == stands
        assert float(row["k"]) == rmp_amplitude(recipe)


def test_every_recipe_with_rows_has_one_entry() -> None:
    files = [path.name for path in (ROOT / "results").glob("*.csv")]
    # By an earlier recipe; tries of other settings; attacks.
    others = ("before-", "fair-best", "robustness-")
    files = [name for name in files if not name.startswith(others)]
    assert {file for file in files if rows_of(file)} == set(MEASURED)
    with_rows = {name for file in files for name in rows_of(file)}
    entries = [name for _, name in ENTRIES]
    assert sorted(entries) == sorted(with_rows)


@pytest.mark.parametrize(
    ("contestant", "names"),
    [
        ("rmploss", ("cifar10-resnet20", "fair-vanilla")),
        ("rmploss+rmp", ("cifar10-resnet20-rmp", "fair-rmp")),
    ],
)
def test_the_cost_of_an_epoch_is_the_benchmarked_one(
    contestant: str, names: tuple[str, ...]
) -> None:
    (path,) = (ROOT / "benchmarks").rglob("epoch-resnet20-2xEPYC.csv")
    with path.open() as lines:
        (row,) = [row for row in csv.DictReader(lines) if row["contestant"] == contestant]
    assert len({get(name).fingerprint() for name in names}) == 1
    for name in names:
        entry = EPOCHS[name]
        assert entry.per_hour == float(f"{float(row['median']):.2f}")
        assert (entry.batch, get(name).T) == (int(row["batch"]), int(row["T"]))


def test_a_recipe_tells_what_to_expect() -> None:
    expected = {name for name, recipe in RECIPES.items() if recipe.expect}
    assert expected == {*(name for _, name in ENTRIES), *EPOCHS}
    assert get("cifar10-resnet20-pocket").expect == (
        "test accuracy 41.27 ± 0.80 % (3 seeds), 4 min on 2 cores of an AMD EPYC"
    )
    assert get("nmnist-convnet-rmp").expect == (
        "test accuracy 96.00 % (1 seed), 36 min on 2 cores of an AMD EPYC, "
        "with the reference backend"
    )
    assert get("cifar10-resnet20-rmp").expect == (
        "not run completely; 12.7 min an epoch (batch 32) on 2 cores of an AMD EPYC"
    )
    assert expectation("imagenet-resnet34-rmp") == ""


@pytest.mark.parametrize(
    ("changes", "stays"),
    [({}, True), ({"seed": 3}, True), ({"T": 4}, True), ({"T": 2}, False), ({"lr": 0.2}, False)],
)
def test_what_was_measured_is_not_told_of_a_changed_recipe(
    changes: dict[str, Value], stays: bool
) -> None:
    recipe = get("cifar10-resnet20-rmp-pocket")
    changed, problems = apply(recipe, changes)
    assert problems == []
    assert changed.expect == (recipe.expect if stays else "")


def test_the_other_reading_is_another_recipe() -> None:
    assert read_as(get("cifar10-resnet20-rmp"), "code").expect == ""
