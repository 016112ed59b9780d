"""Render runs as an HTML page. Text is in template.html.jinja, style in report.css."""

import shlex
from collections.abc import Sequence
from importlib.resources import files
from statistics import fmean, stdev

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rmploss.engine.title import changes, what
from rmploss.report import drawing, events, figures_of, story
from rmploss.report.read import Run

LISTED_CLASSES = 20
"""The most classes that the page lists: of more, the least accurate."""


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
        told=events,
        what=what,
        changes=changes,
        hues=len(drawing.INLINE.hues),
        curves=figures_of.curves(groups),
        membranes=figures_of.membranes(groups),
        layers=figures_of.layers(groups),
        confusions=figures_of.confusions(groups),
        examples=figures_of.examples(groups),
        classes=story.classes(groups),
        listed=LISTED_CLASSES,
    )


def number(values: float | list[float] | None, digits: int = 4, sign: str = "") -> str:
    """A number as text, or mean and standard deviation of several; never a negative zero.

    values: one or several, or None for a dash.
    digits: after the point.
    sign: "+" shows the sign of positive numbers.
    """
    if values is None or values == []:
        return "–"
    several = values if isinstance(values, list) else [values]
    text = f"{fmean(several):{sign}z.{digits}f}".replace("-", "−")
    return text if len(several) == 1 else f"{text} ± {stdev(several):.{digits}f}"
