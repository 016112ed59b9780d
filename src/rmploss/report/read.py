"""Run folders as values: `Run` is one of them, `Group` those of one recipe with different seeds.

Whatever is missing, because a run is not finished or was cut short, is named in `Run.missing`.
"""

import json
import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from rmploss.analysis import Histogram
from rmploss.analysis.histogram import BINS, HIGH, LOW
from rmploss.engine.run import RunFolder
from rmploss.recipes import Recipe


@dataclass(frozen=True)
class Run:
    """One run folder.

    epochs: its records of completed epochs, in order; histograms: of every spiking layer, over
    `samples` test samples; missing: what it does not hold, in sentences.
    """

    path: Path
    recipe: Recipe
    epochs: tuple[dict[str, Any], ...]
    events: tuple[dict[str, Any], ...]
    histograms: tuple[Histogram, ...]
    figure_layer: str
    samples: int
    finished: bool
    missing: tuple[str, ...]

    @property
    def epoch(self) -> int:
        """How many epochs are completed."""
        return self.epochs[-1]["epoch"] if self.epochs else 0

    @property
    def seconds(self) -> float:
        """How long training and testing took in all."""
        spent = (number(e, key) or 0 for e in self.epochs for key in ("train_s", "test_s"))
        return sum(spent)

    @property
    def start(self) -> dict[str, Any]:
        """The first event: the command and the environment."""
        return next((event for event in self.events if event.get("event") == "start"), {})

    def last(self, key: str) -> float | None:
        """A number of the last completed epoch."""
        return number(self.epochs[-1], key) if self.epochs else None

    def best(self) -> tuple[int, float] | None:
        """The first epoch of the highest test accuracy, and that accuracy in percent."""
        known = [(number(e, "test_accuracy"), -e["epoch"]) for e in self.epochs]
        found = max(((value, when) for value, when in known if value is not None), default=None)
        return (-found[1], found[0]) if found else None

    def layer(self, name: str, key: str) -> float | None:
        """A number of one layer in the last completed epoch."""
        layers = self.epochs[-1].get("layers", {}) if self.epochs else {}
        return number(layers.get(name, {}), key)

    def histogram(self, layer: str) -> Histogram | None:
        """The membrane histogram of a layer."""
        return next((h for h in self.histograms if h.layer == layer), None)


@dataclass(frozen=True)
class Spread:
    """Mean over seeds and sample standard deviation, which one seed does not have."""

    mean: float
    std: float | None = None


@dataclass(frozen=True)
class Group:
    """The runs of one recipe; label: what tells it from the other groups; color: its number."""

    runs: tuple[Run, ...]
    label: str
    color: int

    @property
    def recipe(self) -> Recipe:
        """The recipe of all its runs, with the seed of the first."""
        return self.runs[0].recipe

    @property
    def shown(self) -> Run:
        """The run whose membranes are shown: the first that has any."""
        return next((run for run in self.runs if run.histograms), self.runs[0])

    def over_seeds(self, value: Callable[[Run], float | None]) -> Spread | None:
        """A number of every run, as mean and standard deviation over those that have it."""
        known = [x for run in self.runs if (x := value(run)) is not None]
        if not known:
            return None
        return Spread(
            statistics.fmean(known), statistics.stdev(known) if len(known) > 1 else None
        )


def number(record: dict[str, Any], key: str) -> float | None:
    """A finite number of a record of JSON, None if it holds none."""
    value = record.get(key)
    usable = isinstance(value, int | float) and math.isfinite(value)
    return float(value) if usable else None


def read_run(folder: Path) -> Run:
    """A run folder as a value; `UserError` if it is not one."""
    opened = RunFolder.open(folder)
    recipe = Recipe.from_json(opened.recipe())
    epochs = {
        record["epoch"]: record
        for record in opened.metrics()
        if isinstance(record.get("epoch"), int) and "test_accuracy" in record
    }
    finished = (folder / "result.json").is_file()
    histograms, figure_layer, samples, trouble = _membranes(folder / "membrane.json")
    missing = [] if finished else [f"not finished: {len(epochs)} of {recipe.epochs} epochs so far"]
    if trouble:
        missing.append(trouble)
    return Run(
        folder,
        recipe,
        tuple(epochs[n] for n in sorted(epochs)),
        tuple(opened.events()),
        histograms,
        figure_layer,
        samples,
        finished,
        tuple(missing),
    )


def group(runs: Sequence[Run], label: Callable[[Sequence[Recipe]], list[str]]) -> list[Group]:
    """The runs by recipe, unregularized ones first; label: names for different recipes."""
    order = list(dict.fromkeys(run.recipe.fingerprint() for run in runs))
    ranked = sorted(
        runs, key=lambda r: (r.recipe.objective.name != "none", order.index(r.recipe.fingerprint()))
    )
    parts = [tuple(part) for _, part in groupby(ranked, key=lambda r: r.recipe.fingerprint())]
    first = 0 if parts[0][0].recipe.objective.name == "none" else 1
    labels = label([part[0].recipe for part in parts])
    return [Group(p, name, first + i) for i, (p, name) in enumerate(zip(parts, labels, strict=True))]


def _membranes(path: Path) -> tuple[tuple[Histogram, ...], str, int, str]:
    """The histograms of a finished run, the layer of its figure, the samples; or what is wrong."""
    if not path.is_file():
        return (), "", 0, "no membrane.json: histograms are taken when training ends"
    try:
        plain = json.loads(path.read_bytes())
        if any((h["low"], h["high"], len(h["counts"])) != (LOW, HIGH, BINS) for h in plain["layers"]):
            return (), "", 0, "the histograms of membrane.json have the bins of another version"
        layers = tuple(map(Histogram.from_json, plain["layers"]))
        return layers, str(plain["figure_layer"]), int(plain["samples"]), ""
    except (ValueError, KeyError, TypeError) as error:
        return (), "", 0, f"membrane.json is damaged: {error!r}"
