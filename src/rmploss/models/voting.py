"""Read-out by votes (STBP, PLIF): ten spiking output neurons for each class, of which the mean.

    o_c(t) = 1/10 sum_i o_i(t) over the ten neurons i of class c

The mean over time, readout="mean", is the rate of a class in [0, 1]: what their squared error is
taken of.
"""

from abc import abstractmethod

from torch import Tensor

from rmploss.models.network import SpikingNetwork

VOTERS = 10
"""Neurons for each class."""


class VotingNetwork(SpikingNetwork):
    """A network whose last layer is spiking neurons that vote."""

    @abstractmethod
    def voters(self, x: Tensor) -> Tensor:
        """The spikes `[T, B, 10 num_classes]` of the last layer: ten in a row for each class."""

    def outputs(self, x: Tensor) -> Tensor:
        """The share of the votes that each class gets at every step."""
        return self.voters(x).unflatten(-1, (self.num_classes, VOTERS)).mean(-1)
