"""`tools/results.py` writes a row of CSV for every finished run, and none for an unfinished one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

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
