"""Histograms of the membrane before the reset, one per layer (Figures 2 and 3)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rmploss.lifecycle import evaluating
from rmploss.neurons import SpikingLayer
from rmploss.stats import name_layers

LOW, HIGH, BINS = -1.5, 2.0, 140
"""Range and number of the bins; 0, 1/2 and 1 are edges. Dimensionless."""


@dataclass(frozen=True)
class Histogram:
    """The histogram of u_pre of one layer.

    layer: its name in the network.
    v_threshold: its threshold.
    counts: the values in each bin, of width (HIGH - LOW) / BINS.
    below, above: the values outside of the range.
    """

    layer: str
    v_threshold: float
    counts: tuple[int, ...]
    below: int
    above: int

    @property
    def total(self) -> int:
        """The number of all values, including those outside of the range."""
        return sum(self.counts) + self.below + self.above

    def density(self) -> list[float]:
        """The probability density of u_pre in each bin."""
        width = (HIGH - LOW) / BINS
        return [count / max(self.total, 1) / width for count in self.counts]

    def to_json(self) -> dict[str, Any]:
        """A JSON object that `from_json` reads."""
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
    def from_json(data: dict[str, Any]) -> "Histogram":
        """The histogram of `to_json`."""
        return Histogram(
            data["layer"],
            data["v_threshold"],
            tuple(data["counts"]),
            data["below"],
            data["above"],
        )


def edges() -> list[float]:
    """The BINS + 1 edges of the bins."""
    return torch.linspace(LOW, HIGH, BINS + 1, dtype=torch.float64).tolist()


def membrane_histograms(
    net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]
) -> list[Histogram]:
    """The histograms of all spiking layers over all batches, in order of execution.

    net: runs in evaluation mode; afterwards it is in the mode it had.
    batches: (x `[B, C, H, W]` or `[T, B, C, H, W]`, labels `[B]`).
    """
    name_layers(net)
    counts: dict[str, Tensor] = {}
    thresholds: dict[str, float] = {}

    def add(neuron: nn.Module, inputs: tuple[Tensor]) -> None:
        assert isinstance(neuron, SpikingLayer)
        name = neuron.layer_name
        thresholds[name] = neuron.v_threshold
        counts[name] = counts.get(name, 0) + _count(neuron.membrane(inputs[0]))

    neurons = [module for module in net.modules() if isinstance(module, SpikingLayer)]
    hooks = [neuron.register_forward_pre_hook(add) for neuron in neurons]
    try:
        device = next(net.parameters()).device
        with evaluating(net), torch.no_grad():
            for x, labels in batches:
                if len(labels):
                    net(x.to(device))
    finally:
        for hook in hooks:
            hook.remove()
    return [
        Histogram(name, thresholds[name], tuple(row[1:-1]), row[0], row[-1])
        for name, row in ((name, count.tolist()) for name, count in counts.items())
    ]


def _count(u: Tensor) -> Tensor:
    """Counts `[BINS + 2]`: below the range, its bins, above it. A bin includes its lower edge.

    NaN is not counted.
    """
    numbers = u[~u.isnan()].double()
    place = ((numbers - LOW) / (HIGH - LOW) * BINS).floor().clamp(-1, BINS).long() + 1
    return torch.bincount(place, minlength=BINS + 2).cpu()
