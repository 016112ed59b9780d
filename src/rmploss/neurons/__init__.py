"""Layers of spiking neurons: one file per idea, one line each in `NEURONS`."""

from rmploss.neurons.accumulator import Accumulator
from rmploss.neurons.layer import SpikingLayer
from rmploss.neurons.lif import IF, LIF
from rmploss.registry import Registry

__all__ = ["IF", "LIF", "NEURONS", "Accumulator", "SpikingLayer"]

NEURONS: Registry[type[SpikingLayer]] = Registry(
    "neuron",
    {
        "lif": "rmploss.neurons.lif:LIF",
        "if": "rmploss.neurons.lif:IF",
        "plif": "rmploss.neurons.plif:PLIF",
        "diet": "rmploss.neurons.diet:Diet",
        "relu": "rmploss.neurons.relu:ReLU",
        "inflor": "rmploss.neurons.inflor:InfLoR",
        "evolving": "rmploss.neurons.evolving:EvolvingLIF",
        "mpd_agl": "rmploss.neurons.mpd_agl:AdaptiveWidthLIF",
        "real": "rmploss.neurons.real:RealSpike",
        "tssl": "rmploss.neurons.tssl:TSSL",
        "dsr-if": "rmploss.neurons.dsr:DSRIF",
        "dsr-lif": "rmploss.neurons.dsr:DSRLIF",
        "liaf": "rmploss.neurons.liaf:LIAF",
    },
    family="neuron",
)
"""Neurons by name; each is made for a number of channels."""
