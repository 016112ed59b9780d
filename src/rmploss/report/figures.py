"""Histograms and curves as inline SVG, each at the width of a phone.

Colors are placeholders that are replaced by CSS variables, so that the page can be light or dark.
"""

import io
import re
from collections.abc import Callable, Sequence
from importlib.resources import as_file, files

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmploss.analysis import Histogram
from rmploss.analysis.histogram import BINS, HIGH, LOW, edges

INK, MUTED, RULE = "#000001", "#000002", "#000003"
HUES = [f"#00001{number}" for number in range(6)]
STEPS = [1, 2, 2.5, 5, 10]
"""Distances between ticks of a curve, times a power of ten."""
CSS = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"}
CSS |= {hue: f"var(--hue-{number})" for number, hue in enumerate(HUES)}


def curve(name: str, lines: Sequence[tuple[int, list[int], list[float]]], epochs: int) -> Markup:
    """Plot a number over the epochs.

    name: of the number, as the title.
    lines: (hue, epochs, values) of each run; a dot marks the end of a line.
    epochs: the right end of the axis.
    """

    def draw(axes: Axes) -> None:
        for hue, x, y in lines:
            axes.plot(x, y, color=_color(hue), lw=1.8 if len(lines) < 3 else 1.1)
            axes.plot(x[-1:] * 2, y[-1:] * 2, color=_color(hue), lw=6)
        axes.set(xlim=(1, max(epochs, 2)), xlabel="epoch n")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.grid(axis="y")
        axes.set_title(name, x=-0.105)

    return _svg(draw, f"{name} over {epochs} epochs", (400, 230), (42, 12, 30, 42))


def membrane(histogram: Histogram, hue: int, top: float) -> Markup:
    """Plot the density of u_pre in one layer, as in Figures 2 and 3.

    histogram: of the layer.
    hue: the color.
    top: the highest density of the axis, per unit of u_pre.
    """
    at, density, v_threshold = edges(), histogram.density(), histogram.v_threshold
    fires = min(max(round((v_threshold - LOW) / (HIGH - LOW) * BINS), 0), BINS)
    texts = (
        (v_threshold - 0.05, 0.93, "silent", "right", MUTED),
        (v_threshold + 0.05, 0.93, "fires", "left", MUTED),
        (v_threshold, 1.04, f"threshold {v_threshold:g}", "center", INK),
        (0, -0.165, "o = 0", "center", INK),
        (1, -0.165, "o = 1", "center", INK),
    )

    def draw(axes: Axes) -> None:
        for start, stop, alpha in ((0, fires, 0.4), (fires, BINS, 0.85)):
            part = density[start:stop], at[start : stop + 1]
            axes.stairs(*part, fill=True, color=_color(hue), alpha=alpha, lw=0)
        axes.stairs(density, at, color=_color(hue), lw=1.2)
        _draw_marks(axes, v_threshold)
        for x, y, text, align, ink in texts:
            where = axes.get_xaxis_transform()
            axes.text(x, y, text, ha=align, color=ink, transform=where)
        axes.set_ylim(0, top * 1.16)
        axes.set_title("density", x=-0.09, color=MUTED, fontsize=11)
        axes.set_xlabel("membrane potential before the reset, u_pre (dimensionless)", labelpad=27)

    label = f"distribution of the membrane potential in {histogram.layer}"
    return _svg(draw, label, (400, 300), (36, 12, 32, 74))


def thumbnail(histograms: Sequence[tuple[int, Histogram]]) -> Markup:
    """Plot the densities of u_pre in one layer over each other, as (hue, histogram)."""

    def draw(axes: Axes) -> None:
        for hue, histogram in histograms:
            fine = histogram.density()
            coarse = [(a + b) / 2 for a, b in zip(fine[::2], fine[1::2], strict=True)]
            axes.stairs(coarse, edges()[::2], fill=True, color=_color(hue), alpha=0.25, lw=0)
            axes.stairs(coarse, edges()[::2], color=_color(hue), lw=1.3)
        _draw_marks(axes, histograms[0][1].v_threshold)
        axes.set(xticks=[0, 1], yticks=[])
        axes.set_ylim(bottom=0)

    label = f"distribution of the membrane potential in {histograms[0][1].layer}"
    return _svg(draw, label, (180, 98), (4, 4, 4, 20))


def _color(hue: int) -> str:
    return HUES[hue % len(HUES)]


def _draw_marks(axes: Axes, v_threshold: float) -> None:
    axes.set_xlim(LOW, HIGH)
    for spike in (0, 1):
        axes.axvline(spike, color=INK, lw=0.8, alpha=0.45)
    axes.axvline(v_threshold, color=INK, lw=1.2, dashes=(3, 2))


def _svg(
    draw: Callable[[Axes], None],
    label: str,
    size: tuple[int, int],
    margins: tuple[int, int, int, int],
) -> Markup:
    """Draw an SVG element.

    draw: draws on the axes.
    label: the accessible name.
    size: width and height in points.
    margins: left, right, top and bottom of the axes in points.
    """
    (width, height), (left, right, top, bottom) = size, margins
    inner = (width - left - right) / width, (height - top - bottom) / height
    drawn = io.StringIO()
    with (
        as_file(files("rmploss.report").joinpath("report.mplstyle")) as style,
        matplotlib.style.context(["default", style]),
    ):
        figure = Figure((width / 72, height / 72), dpi=72)
        draw(figure.add_axes((left / width, bottom / height, *inner)))
        nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        figure.savefig(drawn, format="svg", transparent=True, metadata=nothing)
    return Markup(_strip(drawn.getvalue(), str(escape(label))))


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
