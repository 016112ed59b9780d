"""Which of the equivalent forms of a network each reader of NIR understands.

Where a library's importer departs from the definition of NIR, its file departs as well, so that the
library computes the network: such a file is for this library alone.
"""

from dataclasses import dataclass
from typing import Literal

Resistance = Literal["own", "one", "ignored"]


@dataclass(frozen=True)
class Style:
    """How a file is written for a reader.

    resistance: "own": r, by the definition. "one": r = 1, for readers that ignore r and scale the
        input by dt/tau; then v is the membrane times (1 - decay) / gain, and so is v_threshold.
        "ignored": for readers that add the input as it is; then v is the membrane over gain.
    decay: "euler": tau = dt / (1 - decay), by the definition. "exponential": tau = -1 / ln(decay)
        steps, for readers whose membranes decay by exp(-1/tau).
    pooling: "mean": AvgPool2d. "convolution": a convolution of each channel with 1 / k^2, for
        readers that have no means.
    strict: readers fire above v_threshold, as NIR says; False: at it, as Eq. 2.
    without_leak: why a reader cannot take IF; None: it can.
    maps: constants have the shape of their layer; False: [1], one for all neurons.
    branches: readers run a node when all its sources have run; False: depth first (`nir_path`).
    soft_reset: a reset by subtraction can be said.
    oldest: the oldest version of nir that the reader comes with; None: any.
    own_file: no other reader computes the network from this file, nor this reader from another.
    """

    resistance: Resistance = "own"
    decay: Literal["euler", "exponential"] = "euler"
    pooling: Literal["mean", "convolution"] = "mean"
    strict: bool = True
    without_leak: str | None = None
    maps: bool = True
    branches: bool = True
    soft_reset: bool = False
    oldest: str | None = None
    own_file: bool = False


STYLES = {
    "nir": Style(),
    "spikingjelly": Style(strict=False),
    "snntorch": Style(without_leak="the reader gives IF a leak"),
    "norse": Style(resistance="one", pooling="convolution", branches=False, own_file=True),
    "sinabs": Style(
        resistance="ignored",
        decay="exponential",
        pooling="convolution",
        strict=False,
        without_leak="the reader gives IF a lowest membrane, -v_threshold",
        maps=False,
        branches=False,
        soft_reset=True,
        oldest="1.0.4",
        own_file=True,
    ),
}
"""The form for each reader; "nir" is what the definition of NIR says."""
