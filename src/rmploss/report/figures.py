"""Histograms and curves as inline SVG, drawn as wide as a phone; the page sets them side by side.

Colors are placeholders that become CSS variables, so that the same page can be light or dark.
"""

import io
import re
from collections.abc import Sequence

import matplotlib.style
from markupsafe import Markup, escape
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rmploss.analysis import Histogram
from rmploss.analysis.histogram import BINS, HIGH, LOW, edges

HUES = ("#000010", "#000011", "#000012", "#000013", "#000014", "#000015")
INK, MUTED, RULE = "#000001", "#000002", "#000003"
CSS = {INK: "var(--ink)", MUTED: "var(--muted)", RULE: "var(--rule)"} | {
    hue: f"var(--hue-{number})" for number, hue in enumerate(HUES)
}
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "rmploss",
    "path.simplify": False,
    "axes.spines.left": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.axisbelow": True,
    "lines.solid_capstyle": "round",
    "grid.color": RULE,
    "font.size": 11,
    "text.color": INK,
}


def curve(name: str, lines: Sequence[tuple[int, list[int], list[float]]], epochs: int) -> Markup:
    """A number over the epochs; lines: hue, epochs and values, with a dot where each line ends."""
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel((400, 230), left=42, bottom=40, top=30)
        for hue, x, y in lines:
            color = HUES[hue % len(HUES)]
            axes.plot(x, y, color=color, lw=1.8)
            axes.plot(x[-1:] * 2, y[-1:] * 2, color=color, lw=6)
        axes.set_xlim(1, max(epochs, 2))
        axes.set_ylim(bottom=0)
        axes.locator_params(axis="both", nbins=6)
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(axis="y")
        axes.set_xlabel("epoch n")
        axes.set_title(name, loc="left", x=-0.11, pad=12, fontsize=11.5)
        return _svg(figure, f"{name} over {epochs} epochs")


def membrane(histogram: Histogram, hue: int, top: float) -> Markup:
    """The density of u_pre in one layer, as in Figures 2 and 3; top: the highest density shown."""
    at, density, v_threshold = edges(), histogram.density(), histogram.v_threshold
    fires = min(max(round((v_threshold - LOW) / (HIGH - LOW) * BINS), 0), BINS)
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel((400, 290), left=36, bottom=64, top=32)
        color = HUES[hue % len(HUES)]
        for start, stop, alpha in ((0, fires, 0.4), (fires, BINS, 0.85)):
            bins = density[start:stop], at[start : stop + 1]
            axes.stairs(*bins, fill=True, color=color, alpha=alpha, lw=0)
        axes.stairs(density, at, color=color, lw=1.2)
        _marks(axes, v_threshold)
        axes.set_ylim(0, top * 1.16)
        across = axes.get_xaxis_transform()
        for x, y, text, align, ink in (
            (v_threshold - 0.05, 0.93, "silent", "right", MUTED),
            (v_threshold + 0.05, 0.93, "fires", "left", MUTED),
            (v_threshold, 1.04, f"threshold {v_threshold:g}", "center", INK),
            (0, -0.17, "o = 0", "center", INK),
            (1, -0.17, "o = 1", "center", INK),
        ):
            axes.text(x, y, text, ha=align, color=ink, transform=across)
        axes.set_title("density", loc="left", x=-0.09, color=MUTED, fontsize=11)
        axes.set_xlabel("membrane potential before the reset, u_pre (dimensionless)", labelpad=21)
        return _svg(figure, f"distribution of the membrane potential in {histogram.layer}")


def thumbnail(histograms: Sequence[tuple[int, Histogram]]) -> Markup:
    """The densities of u_pre in one layer over each other; each comes with its hue."""
    with matplotlib.style.context(["default", STYLE]):
        figure, axes = _panel((180, 96), left=4, bottom=18, top=4, right=4)
        for hue, histogram in histograms:
            color, fine = HUES[hue % len(HUES)], histogram.density()
            density = [(a + b) / 2 for a, b in zip(fine[::2], fine[1::2], strict=True)]
            axes.stairs(density, edges()[::2], fill=True, color=color, alpha=0.25, lw=0)
            axes.stairs(density, edges()[::2], color=color, lw=1.3)
        _marks(axes, histograms[0][1].v_threshold)
        axes.set(xticks=[0, 1], yticks=[])
        axes.set_ylim(bottom=0)
        return _svg(figure, f"distribution of the membrane potential in {histograms[0][1].layer}")


def _panel(
    size: tuple[int, int], *, left: int, bottom: int, top: int, right: int = 12
) -> tuple[Figure, Axes]:
    """Empty axes in a figure of this size and with these margins, all in points."""
    width, height = size
    figure = Figure((width / 72, height / 72), dpi=72)
    inner = (width - left - right) / width, (height - bottom - top) / height
    axes = figure.add_axes((left / width, bottom / height, *inner))
    axes.tick_params(length=0, labelcolor=MUTED)
    return figure, axes


def _marks(axes: Axes, v_threshold: float) -> None:
    axes.set_xlim(LOW, HIGH)
    for spike in (0, 1):
        axes.axvline(spike, color=INK, lw=0.8, alpha=0.45)
    axes.axvline(v_threshold, color=INK, lw=1.2, dashes=(3, 2))


def _svg(figure: Figure, label: str) -> Markup:
    """The figure as an element of a page, without the ids, clips and fonts that it can spare."""
    drawn = io.StringIO()
    about = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(drawn, format="svg", transparent=True, metadata=about)
    text = drawn.getvalue()
    text = re.sub(r"<defs>.*?</defs>|</?g\b[^>]*>", "", text[text.index("<svg") :], flags=re.S)
    text = re.sub(r' (?:id|clip-path|xmlns(?::\w+)?|version)="[^"]*"', "", text)
    text = re.sub(r' (?:width|height)="[^"]*pt"| transform="rotate\(-0 [^"]*"', "", text)
    text = re.sub(r"font-family: [^;\"]*;? ?", "", text)
    text = re.sub(r' (?:d|x|y)="[^"]*"', lambda match: _rounded(match[0]), text)
    for placeholder, variable in CSS.items():
        text = text.replace(placeholder, variable)
    text = re.sub(r"\s*\n\s*", "\n", text).strip()
    return Markup(text.replace("<svg", f'<svg role="img" aria-label="{escape(label)}"', 1))


def _rounded(coordinates: str) -> str:
    """Coordinates to a tenth of a point, which is as much as can be seen."""
    return re.sub(r"\s+", " ", re.sub(r"\d+\.\d+", lambda m: f"{float(m[0]):.1f}", coordinates))
