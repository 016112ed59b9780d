"""The figures of the report: curves, histograms, confusion matrices, examples with their spikes."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from rmploss.analysis import Histogram
from rmploss.analysis.histogram import BINS, HIGH, LOW, edges
from rmploss.report.drawing import Drawing, Palette, axes_within

STEPS = [1, 2, 2.5, 5, 10]
"""Distances between ticks of a curve, times a power of ten."""


def curve(
    name: str, title: str, lines: Sequence[tuple[int, str, list[int], list[float]]], epochs: int
) -> Drawing:
    """Plot a number over the epochs.

    name: of the figure's files.
    title: of the number.
    lines: (hue, run, epochs, values) of each run; a dot marks the end of a line.
    epochs: the right end of the axis.
    """

    def draw(figure: Figure, palette: Palette) -> None:
        axes = axes_within(figure, 42, 12, 30, 42)
        for hue, _, x, y in lines:
            color = palette.hue(hue)
            axes.plot(x, y, color=color, lw=1.8 if len(lines) < 3 else 1.1)
            axes.plot(x[-1:] * 2, y[-1:] * 2, color=color, lw=6)
        axes.set(xlim=(1, max(epochs, 2)), xlabel="epoch n")
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=STEPS))
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=STEPS))
        axes.grid(axis="y")
        axes.set_title(title, x=-0.105)

    rows = [(run, n, value) for _, run, x, y in lines for n, value in zip(x, y, strict=True)]
    columns = {
        "run": [run for run, _, _ in rows],
        "epoch": [n for _, n, _ in rows],
        title: [value for _, _, value in rows],
    }
    return Drawing(name, f"{title} over {epochs} epochs", draw, (400, 230), columns)


def membrane(name: str, histogram: Histogram, hue: int, top: float) -> Drawing:
    """Plot the density of u_pre in one layer, as in Figures 2 and 3.

    name: of the figure's files.
    histogram: of the layer.
    hue: the color.
    top: the highest density of the axis, per unit of u_pre.
    """
    at, density, v_threshold = edges(), histogram.density(), histogram.v_threshold
    fires = min(max(round((v_threshold - LOW) / (HIGH - LOW) * BINS), 0), BINS)

    def draw(figure: Figure, palette: Palette) -> None:
        axes = axes_within(figure, 36, 12, 32, 74)
        texts = (
            (v_threshold - 0.05, 0.93, "silent", "right", palette.muted),
            (v_threshold + 0.05, 0.93, "fires", "left", palette.muted),
            (v_threshold, 1.04, f"threshold {v_threshold:g}", "center", palette.ink),
            (0, -0.165, "o = 0", "center", palette.ink),
            (1, -0.165, "o = 1", "center", palette.ink),
        )
        color = palette.hue(hue)
        for start, stop, alpha in ((0, fires, 0.4), (fires, BINS, 0.85)):
            part = density[start:stop], at[start : stop + 1]
            axes.stairs(*part, fill=True, color=color, alpha=alpha, lw=0)
        axes.stairs(density, at, color=color, lw=1.2)
        _draw_marks(axes, v_threshold, palette)
        for x, y, text, align, ink in texts:
            where = axes.get_xaxis_transform()
            axes.text(x, y, text, ha=align, color=ink, transform=where)
        axes.set_ylim(0, top * 1.16)
        axes.set_title("density", x=-0.09, color=palette.muted, fontsize=11)
        axes.set_xlabel("membrane potential before the reset, u_pre (dimensionless)", labelpad=27)

    label = f"distribution of the membrane potential in {histogram.layer}"
    columns = {"from": at[:-1], "to": at[1:], "density": density}
    return Drawing(name, label, draw, (400, 300), columns)


def thumbnail(name: str, histograms: Sequence[tuple[int, str, Histogram]]) -> Drawing:
    """Plot the densities of u_pre in one layer over each other.

    name: of the figure's files.
    histograms: (hue, label, histogram), at least one.
    """
    layer = histograms[0][2].layer

    def draw(figure: Figure, palette: Palette) -> None:
        axes = axes_within(figure, 4, 4, 4, 20)
        for hue, _, histogram in histograms:
            fine, color = histogram.density(), palette.hue(hue)
            coarse = [(a + b) / 2 for a, b in zip(fine[::2], fine[1::2], strict=True)]
            axes.stairs(coarse, edges()[::2], fill=True, color=color, alpha=0.25, lw=0)
            axes.stairs(coarse, edges()[::2], color=color, lw=1.3)
        _draw_marks(axes, histograms[0][2].v_threshold, palette)
        axes.set(xticks=[0, 1], yticks=[])
        axes.set_ylim(bottom=0)

    at = edges()
    densities = {f"density, {label}": each.density() for _, label, each in histograms}
    columns = {"from": at[:-1], "to": at[1:], **densities}
    label = f"distribution of the membrane potential in {layer}"
    return Drawing(name, label, draw, (180, 98), columns)


def _draw_marks(axes: Axes, v_threshold: float, palette: Palette) -> None:
    axes.set_xlim(LOW, HIGH)
    for spike in (0, 1):
        axes.axvline(spike, color=palette.ink, lw=0.8, alpha=0.45)
    axes.axvline(v_threshold, color=palette.ink, lw=1.2, dashes=(3, 2))
