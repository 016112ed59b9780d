"""Render runs as an HTML page. Text is in template.html.jinja, style in report.css."""

import shlex
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean, stdev
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rmploss.analysis import kl_divergence, proposition_holds
from rmploss.report import figures, story
from rmploss.report.read import Group, Run

CURVES = {
    "train_loss": "loss, training split",
    "test_accuracy": "accuracy, test split (%)",
    "quantization_error": "quantization error, test split",
    "lambda": "λ(n), weight of the regularizer, as used",
}


def render(runs: Sequence[Run]) -> str:
    """The complete page."""
    groups = story.group_runs(runs)
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"number": number, "mean": fmean, "shell": shlex.join}
    folder = files("rmploss.report")
    template = folder.joinpath("template.html.jinja").read_text("utf-8")
    return environment.from_string(template).render(
        style=Markup(folder.joinpath("report.css").read_text("utf-8")),
        runs=runs,
        groups=groups,
        story=story,
        hues=len(figures.HUES),
        curves=[curve for key in CURVES if (curve := _curve(key, groups))],
        membranes=_membranes(groups),
        layers=_layers(groups),
    )


def number(values: float | list[float] | None, digits: int = 4, sign: str = "") -> str:
    """A number as text, or mean and standard deviation of several.

    values: one or several, or None for a dash.
    digits: after the point.
    sign: "+" shows the sign of positive numbers.
    """
    if values is None or values == []:
        return "–"
    several = values if isinstance(values, list) else [values]
    text = f"{fmean(several):{sign}.{digits}f}".replace("-", "−")
    return text if len(several) == 1 else f"{text} ± {stdev(several):.{digits}f}"


def _curve(key: str, groups: Sequence[Group]) -> Markup | None:
    lines = []
    for group in groups:
        for run in group.runs:
            known = [record for record in run.epochs if record.get(key) is not None]
            if known:
                x, y = [record["epoch"] for record in known], [record[key] for record in known]
                lines.append((group.hue, x, y))
    epochs = max(group.runs[0].recipe.epochs for group in groups)
    return figures.curve(CURVES[key], lines, epochs) if lines else None


def _membranes(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """The layer of Figures 2 and 3 of every group that has it, on one scale."""
    pairs = [(g, g.shown.membranes.get(g.shown.figure_layer)) for g in groups]
    known = [(group, histogram) for group, histogram in pairs if histogram]
    top = max((max(histogram.density()) for _, histogram in known), default=1)
    return [
        {"group": group, "histogram": h, "svg": figures.membrane(h, group.hue, top)}
        for group, h in known
    ]


def _layers(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Every spiking layer in order of execution: name, thumbnail, information loss per group."""
    shown = [group.shown for group in groups]
    names = [name for run in shown for name in (*run.last.get("layers", ()), *run.membranes)]
    layers = []
    for name in dict.fromkeys(names):
        histograms = [run.membranes.get(name) for run in shown]
        drawn = [(g.hue, h) for g, h in zip(groups, histograms, strict=True) if h]
        layers.append(
            {
                "name": name,
                "svg": figures.thumbnail(drawn) if drawn else "",
                "kl": [kl_divergence(h) if h else None for h in histograms],
                "holds": [proposition_holds(h) if h else True for h in histograms],
            }
        )
    return layers
