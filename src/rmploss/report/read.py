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
    """One run folder. epochs: the records of its epochs; membranes: by layer, of the last one."""

    path: Path
    recipe: Recipe
    epochs: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    membranes: dict[str, Histogram]
    figure_layer: str
    samples: int
    missing: tuple[str, ...]

    @property
    def last(self) -> dict[str, Any]:
        """The record of the last epoch, to which the best accuracy and its epoch are added."""
        if not self.epochs:
            return {}
        best = max(self.epochs, key=lambda record: record.get("test_accuracy") or 0)
        return {
            **self.epochs[-1],
            "best_accuracy": best.get("test_accuracy"),
            "best_epoch": best["epoch"],
        }

    @property
    def start(self) -> dict[str, Any]:
        """The first event: the command and the environment."""
        return next((event for event in self.events if event.get("event") == "start"), {})

    @property
    def finished(self) -> bool:
        """Whether it came to its last epoch."""
        return self.last.get("epoch") == self.recipe.epochs


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
    recipe = Recipe.from_json(folder.recipe())
    # A resumed run that died again may hold an epoch twice: the later record counts.
    epochs = {record["epoch"]: record for record in folder.metrics() if "test_accuracy" in record}
    membranes, figure_layer, samples, missing = {}, "", 0, []
    if recipe.epochs not in epochs:
        missing.append(f"not finished: {len(epochs)} of {recipe.epochs} epochs")
    try:
        plain = json.loads((path / "membrane.json").read_bytes())
        bins = {(h["low"], h["high"], len(h["counts"])) for h in plain["layers"]}
        if bins - {(LOW, HIGH, BINS)}:
            raise ValueError("other bins than this version's")
        membranes = {h["layer"]: Histogram.from_json(h) for h in plain["layers"]}
        figure_layer, samples = plain["figure_layer"], plain["samples"]
    except FileNotFoundError:
        missing.append("no histograms: they are taken when training ends")
    except (ValueError, KeyError, TypeError) as error:
        missing.append(f"membrane.json cannot be read: {error}")
    return Run(
        path,
        recipe,
        tuple(epochs[n] for n in sorted(epochs)),
        tuple(folder.events()),
        membranes,
        figure_layer,
        samples,
        tuple(missing),
    )
