"""A figure of the report: inline SVG in the colors of the page, or PNG, SVG and CSV in files.

Inline colors are placeholders that are replaced by CSS variables, so that the page can be light or
dark. Files have the colors of the light page.
"""

import csv
import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Any

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

PNG_DPI = 200
"""Dots per inch of PNG files; a figure is 4 to 6 inches wide."""


@dataclass(frozen=True)
class Palette:
    """Colors, each as #rrggbb.

    ink, muted, rule, paper: of text and marks, of labels, of lines of a grid, of the ground.
    hues: of runs; the first one follows the last.
    """

    ink: str
    muted: str
    rule: str
    paper: str
    hues: tuple[str, ...]

    def hue(self, number: int) -> str:
        """The color of that number."""
        return self.hues[number % len(self.hues)]


INLINE = Palette(
    "#000001", "#000002", "#000003", "#000004", tuple(f"#00001{number}" for number in range(6))
)
"""Placeholders."""
CSS = {getattr(INLINE, name): f"var(--{name})" for name in ("ink", "muted", "rule", "paper")}
CSS |= {hue: f"var(--hue-{number})" for number, hue in enumerate(INLINE.hues)}


@dataclass(frozen=True)
class Drawing:
    """One figure.

    name: of its files, without suffix.
    label: what it shows, for people who do not see it.
    draw: draws on a figure of that size.
    size: width and height in points.
    columns: the numbers that it shows: the rows of its CSV file by column.
    """

    name: str
    label: str
    draw: Callable[[Figure, Palette], None]
    size: tuple[int, int]
    columns: Mapping[str, Sequence[object]]

    def inline(self) -> Markup:
        """The figure as an SVG element of the page."""
        text = self._saved("svg", INLINE, transparent=True).decode()
        return Markup(_strip(text, str(escape(self.label))))

    def files(self) -> dict[str, bytes]:
        """The figure as files: content by name. The same figure gives the same bytes."""
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(zip(*self.columns.values(), strict=True))
        return {
            f"{self.name}.svg": self._saved("svg", light()),
            f"{self.name}.png": self._saved("png", light(), dpi=PNG_DPI),
            f"{self.name}.csv": table.getvalue().encode(),
        }

    def _saved(self, kind: str, palette: Palette, **options: Any) -> bytes:
        drawn = io.BytesIO()
        texts = {"text.color": palette.ink, "axes.edgecolor": palette.muted}
        texts |= {"axes.labelcolor": palette.muted, "grid.color": palette.rule}
        texts |= {f"{axis}tick.labelcolor": palette.muted for axis in "xy"}
        with (
            as_file(files("rmploss.report").joinpath("report.mplstyle")) as style,
            matplotlib.style.context(["default", style, texts]),
        ):
            figure = Figure((self.size[0] / 72, self.size[1] / 72), dpi=72)
            self.draw(figure, palette)
            named = ("Date", "Creator", "Format", "Type") if kind == "svg" else ("Software",)
            figure.savefig(drawn, format=kind, metadata=dict.fromkeys(named), **options)
        return drawn.getvalue()


def axes_within(figure: Figure, left: int, right: int, top: int, bottom: int) -> Axes:
    """The axes of a figure with these margins in points."""
    width, height = figure.get_size_inches() * 72
    inner = (width - left - right) / width, (height - top - bottom) / height
    return figure.add_axes((left / width, bottom / height, *inner))


@functools.cache
def light() -> Palette:
    """The colors of the light page, from its style sheet."""
    style = files("rmploss.report").joinpath("report.css").read_text("utf-8")
    colors = re.findall(r"--([\w-]+): (#[0-9a-f]{6})", style)
    found = dict(reversed(colors))  # the first of each: the light page comes first
    hues = tuple(found[f"hue-{number}"] for number in range(len(INLINE.hues)))
    return Palette(found["ink"], found["muted"], found["rule"], found["paper"], hues)


def _strip(text: str, label: str) -> str:
    """Remove fonts, ids, clip paths and needless decimals from an SVG, and label it."""
    text = re.sub(r"<defs>.*?</defs>|</?g\b[^>]*>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r' (?:id|clip-path|xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r' (?:width|height)="[^"]*pt"| transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' (?:d|x|y)="[^"]*"', lambda match: _round(match[0]), text)
    for placeholder, variable in CSS.items():
        text = text.replace(placeholder, variable)
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    return text.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


def _round(coordinates: str) -> str:
    """Round coordinates to a tenth of a point, which is not visible."""
    return re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", lambda m: f"{float(m[0]):.1f}", coordinates))
