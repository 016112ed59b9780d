"""Figures of classes: the confusion matrix, and examples with their spikes over time."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from rmploss.analysis import Example
from rmploss.report.drawing import Drawing, Palette, axes_within
from rmploss.report.predictions import Predictions

MOST_CLASSES = 20
"""Above this number of classes a matrix of counts cannot be read."""
DARK = 0.55
"""The share of a row from which the number of a cell has the color of the paper."""
SPIKES = "#2f8fd0"
"""The color of spikes, which is seen on light and on dark paper. Pixels have no CSS variables."""
SIDE, GAP, NAMES, HEAD = 66, 8, 96, 26
"""Points: the side of a picture, between two, to the left of them, above the first row."""


def confusion(name: str, predictions: Predictions, hue: int, split: str = "test") -> Drawing:
    """Draw the counts of a confusion matrix of at most `MOST_CLASSES`; a row is a class.

    name: of the figure's files.
    predictions: of a run.
    hue: the color, stronger for a greater share of its row.
    split: the word for the split of the predictions.
    """
    names, count = predictions.names, len(predictions.names)
    shares = {(a, b): n / predictions.of_class(a) for a, b, n in predictions.confusion}
    left = 20 + 6 * min(max(map(len, names), default=0), 14)

    def draw(figure: Figure, palette: Palette) -> None:
        axes = axes_within(figure, left, 8, 8, left)
        for label, guess, n in predictions.confusion:
            share = shares[label, guess]
            axes.bar(guess, 1, 1, label - 0.5, color=palette.hue(hue), alpha=share, lw=0)
            ink = palette.paper if share > DARK else palette.ink
            size = 11 if count <= 10 else 8
            axes.text(guess, label, str(n), ha="center", va="center", color=ink, fontsize=size)
        axes.set(xlim=(-0.5, count - 0.5), ylim=(count - 0.5, -0.5))
        short = [each if len(each) <= 14 else each[:13] + "…" for each in names]
        axes.set_xticks(range(count), short, rotation=90)
        axes.set_yticks(range(count), short)
        axes.set(xlabel="predicted", ylabel="class")
        axes.spines["bottom"].set_visible(False)

    columns = {
        "class": [names[a] for a, _, _ in predictions.confusion],
        "predicted": [names[b] for _, b, _ in predictions.confusion],
        "samples": [n for _, _, n in predictions.confusion],
    }
    side = 400
    return Drawing(name, f"confusion matrix of the {split} split", draw, (side, side), columns)


def example(name: str, shown: Example, names: Sequence[str]) -> Drawing:
    """Draw an input, and where its first spiking layer is active in every time step.

    name: of the figure's files.
    shown: of a run.
    names: of the classes.
    """
    steps, event = len(shown.spikes), len(shown.frames) > 1
    rows = 2 if event else 1
    columns = max(steps, len(shown.frames)) if event else steps + 1
    width = columns * (SIDE + GAP)
    height = HEAD + rows * (SIDE + GAP)

    def place(figure: Figure, row: int, column: int) -> Axes:
        x = column * (SIDE + GAP)
        y = HEAD + row * (SIDE + GAP)
        axes = axes_within(figure, x, width - x - SIDE, y, height - y - SIDE)
        axes.set_axis_off()
        return axes

    def draw(figure: Figure, palette: Palette) -> None:
        for step, frame in enumerate(shown.frames.numpy()):
            axes = place(figure, 0, step)
            axes.imshow(frame, cmap="gray", vmin=0, vmax=255, interpolation="none")
            axes.set_title(f"t = {step + 1}" if event else "input", loc="left", pad=5)
        color = (np.array(to_rgb(SPIKES)) * 255).round()
        strongest = max(int(shown.spikes.max()), 1)
        for step, share in enumerate(shown.spikes.numpy() * (255 / strongest)):
            axes = place(figure, int(event), step if event else step + 1)
            pixels = np.empty((*share.shape, 4), np.uint8)
            pixels[..., :3], pixels[..., 3] = color, share
            axes.imshow(pixels, interpolation="none")
            height, width = share.shape
            frame = ([-0.5, width - 0.5, width - 0.5, -0.5, -0.5],)
            frame += ([-0.5, -0.5, height - 0.5, height - 0.5, -0.5],)
            axes.plot(*frame, color=palette.rule, lw=0.8, clip_on=False)
            if not event:
                axes.set_title(f"t = {step + 1}", loc="left", pad=5)

    rates = {layer: list(values) for layer, values in shown.active.items()}
    label = f"{names[shown.label]} and the spikes of {shown.layer} over {steps} time steps"
    table = {"t": [t + 1 for t in range(steps)], **rates}
    return Drawing(name, label, draw, (width, height), table)
