"""Run folders as the rows of a CSV: `python tools/results.py runs/* > results/NAME.csv`.

One row per finished run, sorted by recipe and seed, with the command that made it.
"""

import csv
import json
import sys
from pathlib import Path

from rmploss.engine.after_training import COST
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.report.read import input_errors
from rmploss.report.recorded import rmp_amplitude

READINGS = (
    "quantization_error",
    "quantization_error_of_elements",
    "input_quantization_error",
    "input_quantization_error_of_elements",
)
"""The quantization error of u_pre and of the input current, by both means (docs/readings.md)."""
FIELDS = (
    "recipe",
    "seed",
    "T",
    "k",
    "weight_decay",
    "weight_decay_on",
    "epochs",
    "train_samples",
    "test_samples",
    "last_accuracy",
    "best_accuracy",
    "best_epoch",
    "averaged_accuracy",
    *READINGS,
    "firing_rate",
    "microjoules",
    "train_cpu_s",
    "command",
)


def row(path: Path) -> dict[str, object] | None:
    """The row of a finished run; None if the run is not finished."""
    folder = RunFolder.open(path)
    recipe, metrics = folder.recipe(), folder.metrics()
    if not metrics or metrics[-1]["epoch"] < recipe.epochs:
        return None
    done = summarize(metrics)
    average = "averaged_accuracy" in done
    errors = done | input_errors(path)
    return {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "T": recipe.T,
        "k": f"{rmp_amplitude(recipe):g}",
        "weight_decay": recipe.weight_decay,
        "weight_decay_on": recipe.weight_decay_on,
        "epochs": recipe.epochs,
        "train_samples": recipe.train_samples or "all",
        "test_samples": recipe.test_samples or "all",
        "last_accuracy": f"{done['last_accuracy']:.2f}",
        "best_accuracy": f"{done['best_accuracy']:.2f}",
        "best_epoch": done["best_epoch"],
        "averaged_accuracy": f"{done['averaged_accuracy']:.2f}" if average else "",
        **{name: f"{errors[name]:.4f}" if name in errors else "" for name in READINGS},
        "firing_rate": f"{done['firing_rate']:.4f}",
        "microjoules": _microjoules(path),
        "train_cpu_s": f"{done['train_cpu_s']:.0f}" if "train_cpu_s" in done else "",
        "command": " ".join(folder.events()[0]["command"]),
    }


def _microjoules(path: Path) -> str:
    """The estimated energy of an inference in microjoules; "" if the run has no cost.json."""
    if not (path / COST).is_file():
        return ""
    return f"{json.loads((path / COST).read_text())['microjoules']:.2f}"


def main(paths: list[str]) -> None:
    """Print the CSV of the finished runs among the folders."""
    rows = [values for path in paths if (values := row(Path(path)))]
    out: csv.DictWriter[str] = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
    out.writeheader()
    out.writerows(
        sorted(rows, key=lambda r: (str(r["recipe"]), float(str(r["k"])), int(str(r["seed"]))))
    )


if __name__ == "__main__":
    main(sys.argv[1:])
