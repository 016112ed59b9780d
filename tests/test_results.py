"""`tools/results.py` writes a row of CSV for every finished run, and none for an unfinished one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest
import tables

from rmploss.recipes import Use, get, use
from rmploss.report.recorded import rmp_amplitude

ROOT = Path(__file__).parent.parent
RUNS = Path(__file__).parent / "fixtures" / "runs"


def test_a_finished_run_is_a_row() -> None:
    runs = [str(path.parent) for path in RUNS.glob("**/recipe.json")]
    words = [sys.executable, str(ROOT / "tools" / "results.py"), *runs]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    rows = list(csv.DictReader(done.stdout.splitlines()))
    assert len(rows) == sum((Path(run) / "result.json").is_file() for run in runs) == 2
    for row in rows:
        assert (row["recipe"], row["seed"]) == ("digits-rmp", "0")
        assert int(row["best_epoch"]) <= int(row["epochs"])
        assert float(row["last_accuracy"]) <= float(row["best_accuracy"]) <= 100
        assert float(row["quantization_error"]) > 0
        assert row["input_quantization_error"] == ""  # of versions that did not measure it
        assert (row["weight_decay"], row["weight_decay_on"]) == ("0.0005", "all")
    begun = sorted(row["command"].partition(" --")[0] for row in rows)
    assert begun == ["", "rmploss train digits-rmp"]  # one was begun from Python


@pytest.mark.parametrize(
    ("objective", "k"),
    [
        (use("none"), 0),
        (use("im", weight=0.7), 0),
        (use("rmp", k=0.3), 0.3),
        (use("several", names=("im", "rmp")), 0.1),
        (use("several", names=("rmp", "recdis")).but(options=(("rmp.k", 0.3),)), 0.3),
        (use("several", names=("im", "recdis")), 0),
    ],
    ids=repr,
)
def test_the_amplitude_is_that_of_the_rmp_term(objective: Use, k: float) -> None:
    assert rmp_amplitude(get("digits").but(objective=objective)) == k


def test_no_row_with_rmp_loss_has_amplitude_zero() -> None:
    for path in (ROOT / "results").glob("*.csv"):
        with path.open() as lines:
            wrong = [
                r for r in csv.DictReader(lines) if "-rmp-" in r["recipe"] and r.get("k") == "0"
            ]
        assert not [r for r in wrong if "--set" not in r["command"].split()], path.name


@pytest.mark.parametrize(
    ("change", "shown"),
    [
        ({}, "93.00"),
        ({"epochs": "10"}, "not run"),
        ({"train_samples": "5000"}, "not run"),
        ({"test_samples": "1000"}, "not run"),
        ({"k": "0.3"}, "not run"),
        ({"command": "rmploss train cifar10-resnet20-rmp --set lr=0.2"}, "not run"),
    ],
    ids=str,
)
def test_only_rows_of_the_recipe_stand_beside_the_paper(
    change: dict[str, str], shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = get("cifar10-resnet20-rmp")
    row = {"recipe": recipe.name, "seed": "0", "T": "4", "k": "0.1", "epochs": str(recipe.epochs)}
    row |= {"train_samples": "all", "test_samples": "all", "last_accuracy": "93"}
    row |= {"command": f"rmploss train {recipe.name}"} | change
    (tmp_path / "results").mkdir()
    with (tmp_path / "results" / "full.csv").open("w") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)
    monkeypatch.setattr(tables, "ROOT", tmp_path)
    (line,) = [x for x in tables.table1().splitlines() if x.startswith(f"| `{recipe.name}` | 4")]
    assert line.endswith(f"| {shown} |")
