"""All figures of a report, by section, from groups of runs."""

import re
from collections.abc import Sequence
from typing import Any

from rmploss.analysis import kl_divergence, proposition_holds
from rmploss.report import class_figures, figures
from rmploss.report.drawing import Drawing
from rmploss.report.read import Group
from rmploss.report.story import split_of

CURVES = {
    "train_loss": "loss, training split",
    "test_accuracy": "accuracy, {split} split (%)",
    "quantization_error": "quantization error, {split} split",
    "lambda": "λ(n), weight of the regularizer, as used",
}


def every(groups: Sequence[Group]) -> list[Drawing]:
    """All figures, in the order of the page."""
    parts = (membranes(groups), layers(groups), confusions(groups), examples(groups))
    rest = [item["drawing"] for part in parts for item in part if item["drawing"]]
    return [*curves(groups), *rest]


def curves(groups: Sequence[Group]) -> list[Drawing]:
    """Loss, accuracy, quantization error and lambda over the epochs, of all runs."""
    return [drawn for key in CURVES if (drawn := _curve(key, groups))]


def _curve(key: str, groups: Sequence[Group]) -> Drawing | None:
    lines = []
    for group in groups:
        for run in group.runs:
            known = [record for record in run.epochs if record.get(key) is not None]
            if known:
                x, y = [record["epoch"] for record in known], [record[key] for record in known]
                lines.append((group.hue, run.path.name, x, y))
    epochs = max(group.runs[0].recipe.epochs for group in groups)
    label = CURVES[key].format(split=split_of(groups))
    return figures.curve(_named("curve", key), label, lines, epochs) if lines else None


def membranes(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The layer of Figures 2 and 3 of every group that has it, on one scale."""
    pairs = [(g, g.shown.membranes.get(g.shown.figure_layer)) for g in groups]
    known = [(group, histogram) for group, histogram in pairs if histogram]
    top = max((max(histogram.density()) for _, histogram in known), default=1)
    return [
        {
            "group": group,
            "histogram": h,
            "drawing": figures.membrane(_named("membrane", group.label), h, group.hue, top),
        }
        for group, h in known
    ]


def layers(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Every spiking layer in order of execution: name, thumbnail, information loss per group."""
    shown = [group.shown for group in groups]
    names = [name for run in shown for name in (*run.last.get("layers", ()), *run.membranes)]
    found = []
    for name in dict.fromkeys(names):
        histograms = [run.membranes.get(name) for run in shown]
        drawn = [(g.hue, g.label, h) for g, h in zip(groups, histograms, strict=True) if h]
        found.append(
            {
                "name": name,
                "drawing": figures.thumbnail(_named("layer", name), drawn) if drawn else None,
                "kl": [kl_divergence(h) if h else None for h in histograms],
                "holds": [proposition_holds(h) if h else True for h in histograms],
            }
        )
    return found


def confusions(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The confusion matrix of every group that has one, if its classes are few enough."""
    return [
        {
            "group": group,
            "drawing": class_figures.confusion(
                _named("confusion", group.label), known, group.hue, split_of([group])
            ),
        }
        for group in groups
        if (known := group.tested.predictions) and len(known.names) <= class_figures.MOST_CLASSES
    ]


def examples(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The examples of every group that has some, with their class and the predicted one."""
    return [
        {
            "group": group,
            "example": shown,
            "label": known.names[shown.label],
            "predicted": known.names[shown.predicted],
            "drawing": class_figures.example(
                _named("example", str(number), group.label), shown, known.names
            ),
        }
        for group in groups
        if (known := group.tested.predictions)
        for number, shown in enumerate(known.examples, 1)
        if len(shown.spikes)
    ]


def _named(*parts: str) -> str:
    """The name of a figure's files: letters, digits, dots and hyphens."""
    return re.sub(r"[^\w.]+", "-", "-".join(parts), flags=re.ASCII).strip("-.")
