"""Run folders as values. What one does not hold, as it is not finished, `Run.missing` tells."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmploss.analysis import Histogram
from rmploss.analysis.histogram import BINS, HIGH, LOW
from rmploss.engine.run import RunFolder
from rmploss.recipes import Recipe


@dataclass(frozen=True)
class Run:
    """One run folder.

    epochs: the records of its epochs; last: of the last one, with the best accuracy, its epoch and
    all the seconds it took;
    membranes: histograms by layer, over so many test samples after the last epoch.
    """

    path: Path
    recipe: Recipe
    epochs: list[dict[str, Any]]
    last: dict[str, Any]
    events: list[dict[str, Any]]
    membranes: dict[str, Histogram]
    figure_layer: str
    samples: int
    missing: list[str]


@dataclass(frozen=True)
class Group:
    """Runs of one recipe with their seeds; label: short, unlike other groups'; hue: their color."""

    runs: tuple[Run, ...]
    label: str
    hue: int

    @property
    def shown(self) -> Run:
        """The run whose membranes are shown: the first that has any."""
        return next((run for run in self.runs if run.membranes), self.runs[0])

    def values(self, key: str, layer: str = "") -> list[float]:
        """A number of every run's last epoch, or of one layer then, from those that have it."""
        records = [run.last for run in self.runs]
        if layer:
            records = [record.get("layers", {}).get(layer, {}) for record in records]
        return [record[key] for record in records if record.get(key) is not None]


def read(path: Path) -> Run:
    """A run folder as a value; `UserError` if it is not one."""
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    # A resumed run that died again may hold an epoch twice: the later record counts.
    by_epoch = {record["epoch"]: record for record in folder.metrics() if "test_accuracy" in record}
    epochs = [by_epoch[n] for n in sorted(by_epoch)]
    missing = []
    if recipe.epochs not in by_epoch:
        missing.append(f"not finished: {len(epochs)} of {recipe.epochs} epochs")
    membranes, figure_layer, samples = {}, "", 0
    try:
        plain = json.loads((path / "membrane.json").read_bytes())
        figure_layer, samples, layers = plain["figure_layer"], plain["samples"], plain["layers"]
        if any((h["low"], h["high"], len(h["counts"])) != (LOW, HIGH, BINS) for h in layers):
            raise ValueError("its bins are not those of this version")
        membranes = {h["layer"]: Histogram.from_json(h) for h in layers}
    except FileNotFoundError:
        missing.append("no histograms: they are taken when training ends")
    except (ValueError, KeyError, TypeError) as error:
        missing.append(f"membrane.json cannot be read: {error!r}")
    return Run(
        path.absolute(),
        recipe,
        epochs,
        _last(epochs),
        folder.events(),
        membranes,
        figure_layer,
        samples,
        missing,
    )


def _last(epochs: list[dict[str, Any]]) -> dict[str, Any]:
    if not epochs:
        return {}
    best = max(epochs, key=lambda record: record.get("test_accuracy") or 0)
    spent = [record.get(key) or 0 for record in epochs for key in ("train_s", "test_s")]
    return epochs[-1] | {
        "best_accuracy": best.get("test_accuracy"),
        "best_epoch": best["epoch"],
        "seconds": sum(spent),
    }
