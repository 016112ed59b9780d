"""Read run folders. `Run.missing` lists what an unfinished or damaged run lacks."""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rmploss.analysis import Histogram
from rmploss.analysis.histogram import BINS, HIGH, LOW
from rmploss.engine.after_training import COST, MEMBRANE, PREDICTIONS
from rmploss.engine.files import read_regular
from rmploss.engine.run import RunFolder
from rmploss.engine.verify import record_damages
from rmploss.errors import Problem
from rmploss.recipes import Recipe
from rmploss.report.predictions import Predictions, read_predictions

Content = TypeVar("Content")
ERRORS = ("quantization_error", "quantization_error_of_elements")
"""The mean of the layers' means, and the mean of all membrane values."""


@dataclass(frozen=True)
class Run:
    """One run folder.

    path: of the folder.
    recipe: of the run.
    epochs: the records of its epochs.
    last: the record of the last epoch, and the best accuracy, its epoch, the run's seconds, images
        per second, the microjoules of an inference, and `input_errors`.
    events: starts, resumes and whatever else happened.
    membranes: layer -> histogram of u_pre after the last epoch.
    figure_layer: the layer of Figures 2 and 3.
    samples: the number of test samples in the histograms.
    predictions: on the test split; None: a run of an earlier version.
    missing: sentences about what the folder lacks, and which of its files are damaged.
    """

    path: Path
    recipe: Recipe
    epochs: list[dict[str, Any]]
    last: dict[str, Any]
    events: list[dict[str, Any]]
    membranes: dict[str, Histogram]
    figure_layer: str
    samples: int
    predictions: Predictions | None
    missing: list[str]


@dataclass(frozen=True)
class Group:
    """Runs of one recipe over seeds.

    runs: at least one.
    label: short, and different from that of other groups.
    hue: the number of their color.
    """

    runs: tuple[Run, ...]
    label: str
    hue: int

    @property
    def shown(self) -> Run:
        """The run whose histograms are shown: the first that has any."""
        return next((run for run in self.runs if run.membranes), self.runs[0])

    @property
    def tested(self) -> Run:
        """The run whose predictions are shown: the first that has any."""
        return next((run for run in self.runs if run.predictions), self.runs[0])

    def values(self, key: str, layer: str = "") -> list[float]:
        """A number of each run's last epoch, or of one layer; runs without it are skipped."""
        records = [run.last for run in self.runs]
        if layer:
            records = [record.get("layers", {}).get(layer, {}) for record in records]
        return [record[key] for record in records if record.get(key) is not None]


def read(path: Path) -> Run:
    """Read a run folder. Raises `UserError` if it is not one."""
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    # A run that was killed after a resume may hold an epoch twice: the later record counts.
    by_epoch = {record["epoch"]: record for record in folder.metrics() if "test_accuracy" in record}
    epochs = [by_epoch[n] for n in sorted(by_epoch)]
    damages = record_damages(path)
    missing = [f"damaged: {d.file}: expected {d.expected}, found {d.found}" for d in damages]
    if recipe.epochs not in by_epoch:
        missing.append(f"not finished: {len(epochs)} of {recipe.epochs} epochs")
    if not (path / MEMBRANE).exists():
        missing.append("no histograms: they are taken when training ends")
    found = _readable(_membranes, path / MEMBRANE, missing)
    figure_layer, samples, membranes = found or ("", 0, {})
    return Run(
        path.absolute(),
        recipe,
        epochs,
        _last(epochs, recipe) | input_errors(path) | microjoules(path),
        folder.events(),
        membranes,
        figure_layer,
        samples,
        _readable(read_predictions, path / PREDICTIONS, missing),
        missing,
    )


def microjoules(path: Path) -> dict[str, float]:
    """The energy of one inference of a run, as `{"microjoules": x}`; empty without cost.json."""
    try:
        cost = float(json.loads(read_regular(path / COST))["microjoules"])
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return {}
    return {"microjoules": cost} if math.isfinite(cost) else {}


def input_errors(path: Path) -> dict[str, float]:
    """The quantization error of the input current on the test split, by both means.

    As `{"input_quantization_error": x, "input_quantization_error_of_elements": y}`; empty for a
    run of an earlier version.
    """
    try:
        stored = json.loads(read_regular(path / MEMBRANE))["input"]
        found = {f"input_{name}": float(stored[name]) for name in ERRORS}
    except (OSError, ValueError, LookupError, TypeError, OverflowError, RecursionError):
        return {}
    return found if all(map(math.isfinite, found.values())) else {}


def _readable(read: Callable[[Path], Content], path: Path, missing: list[str]) -> Content | None:
    """The content of a file; None if it is not there, or cannot be read: that is told."""
    try:
        return read(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        missing.append(f"{path.name} cannot be read: {error.strerror or error}")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        missing.append(f"{path.name} cannot be read: {error!r}")
    return None


def damaged(folders: Sequence[Path]) -> list[Problem]:
    """The damaged files of run folders, of those that a report reads."""
    return [damage.problem(path) for path in folders for damage in record_damages(path)]


def _membranes(path: Path) -> tuple[str, int, dict[str, Histogram]]:
    """The layer of the figures, the number of samples, and the histograms of membrane.json."""
    stored = json.loads(read_regular(path))
    layers = stored["layers"]
    if any((h["low"], h["high"], len(h["counts"])) != (LOW, HIGH, BINS) for h in layers):
        raise ValueError("its bins are not those of this version")
    for h in layers:
        counts = (*h["counts"], h["below"], h["above"])
        if not all(type(count) is int and 0 <= count < 1 << 62 for count in counts):
            raise ValueError("a count that is none")
        if type(h["v_threshold"]) not in (int, float) or not 0 < h["v_threshold"] < 1e9:
            raise ValueError("a threshold that is none")
        if not isinstance(h["layer"], str):
            raise TypeError("a layer without name")
    if not isinstance(stored["figure_layer"], str) or type(stored["samples"]) is not int:
        raise TypeError("a figure_layer or a number of samples that is none")
    return (
        stored["figure_layer"],
        stored["samples"],
        {h["layer"]: Histogram.from_json(h) for h in layers},
    )


def _last(epochs: list[dict[str, Any]], recipe: Recipe) -> dict[str, Any]:
    if not epochs:
        return {}
    best = max(epochs, key=lambda record: record.get("test_accuracy") or 0)
    spent = [record.get(key) or 0 for record in epochs for key in ("train_s", "test_s")]
    return epochs[-1] | {
        "best_accuracy": best.get("test_accuracy"),
        "best_epoch": best["epoch"],
        "seconds": sum(spent),
        "images_per_s": _images_per_s(epochs, recipe),
    }


def _images_per_s(epochs: list[dict[str, Any]], recipe: Recipe) -> float | None:
    """The images per second of training: the median over the epochs, since one may be resumed."""
    steps = [record.get("step") or 0 for record in epochs]
    before = [0 if epochs[0]["epoch"] == 1 else None, *steps]
    rates = [
        (step - earlier) * recipe.batch_size / record["train_s"]
        for record, step, earlier in zip(epochs, steps, before, strict=False)
        if earlier is not None and step > earlier and record.get("train_s")
    ]
    return statistics.median(rates) if rates else None
