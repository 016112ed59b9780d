"""Spiking neurons: one file per idea, one line each in `NEURONS`."""

from torch import nn

from rmploss.neurons.accumulator import Accumulator
from rmploss.neurons.lif import IF, LIF
from rmploss.tables import Table

__all__ = ["IF", "LIF", "NEURONS", "Accumulator"]

NEURONS: Table[type[nn.Module]] = Table(
    "neuron",
    {
        "lif": "rmploss.neurons.lif:LIF",
        "if": "rmploss.neurons.lif:IF",
    },
)
