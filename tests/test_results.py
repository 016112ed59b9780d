"""`tools/results.py` writes a row of CSV for every finished run, and none for an unfinished one."""

import csv
import subprocess
import sys
from pathlib import Path

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
