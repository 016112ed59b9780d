"""The distribution of the membrane before the reset, layer by layer (Figures 2 and 3)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmploss.neurons import SpikingLayer
from rmploss.stats import name_layers

LOW, HIGH, BINS = -1.5, 2.0, 140
"""The range and the number of the bins; 0, 1/2 and 1 are edges. Dimensionless."""


@dataclass(frozen=True)
class Histogram:
    """How often u_pre of one layer fell into each bin.

    counts: one number per bin, all of width (HIGH - LOW) / BINS; below, above: how often u_pre was
    outside of the range; v_threshold: of the layer.
    """

    layer: str
    v_threshold: float
    counts: tuple[int, ...]
    below: int
    above: int

    @property
    def total(self) -> int:
        """All values, those outside of the range too."""
        return sum(self.counts) + self.below + self.above

    def density(self) -> list[float]:
        """The probability density of u_pre in each bin."""
        width = (HIGH - LOW) / BINS
        return [count / max(self.total, 1) / width for count in self.counts]

    def to_json(self) -> dict[str, Any]:
        """Plain data that `from_json` reads back."""
        return {
            "layer": self.layer,
            "v_threshold": self.v_threshold,
            "low": LOW,
            "high": HIGH,
            "below": self.below,
            "above": self.above,
            "counts": list(self.counts),
        }

    @staticmethod
    def from_json(plain: dict[str, Any]) -> "Histogram":
        """The histogram of `to_json`."""
        return Histogram(
            plain["layer"],
            plain["v_threshold"],
            tuple(plain["counts"]),
            plain["below"],
            plain["above"],
        )


def edges() -> list[float]:
    """The BINS + 1 edges of the bins."""
    return torch.linspace(LOW, HIGH, BINS + 1, dtype=torch.float64).tolist()


def membrane_histograms(
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> list[Histogram]:
    """The histogram of every spiking layer over all batches, in evaluation mode, in running order.

    batches: (x, labels) as for `engine.evaluate`. The network comes back in the mode it had.
    """
    name_layers(net)
    counts: dict[str, Tensor] = {}
    thresholds: dict[str, float] = {}

    def look(neuron: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(neuron, SpikingLayer)
        name = neuron.layer_name
        thresholds[name] = neuron.v_threshold
        counts[name] = counts.get(name, 0) + _count(neuron.membrane(inputs[0]))

    neurons = [module for module in net.modules() if isinstance(module, SpikingLayer)]
    hooks = [neuron.register_forward_pre_hook(look) for neuron in neurons]
    training = net.training
    net.eval()
    try:
        device = next(net.parameters()).device
        with torch.no_grad():
            for x, labels in batches:
                if len(labels):
                    net(x.to(device))
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return [
        Histogram(name, thresholds[name], tuple(row[1:-1]), row[0], row[-1])
        for name, row in ((name, count.tolist()) for name, count in counts.items())
    ]


def _count(u: Tensor) -> Tensor:
    """Counts `[BINS + 2]`: below the range, its bins, above it. A bin holds its lower edge.

    NaN is nowhere: it is not counted.
    """
    numbers = u[~u.isnan()].double()
    place = ((numbers - LOW) / (HIGH - LOW) * BINS).floor().clamp(-1, BINS).long() + 1
    return torch.bincount(place, minlength=BINS + 2).cpu()
