"""A small spiking network for small inputs: digits, N-MNIST, demonstrations and tests."""

from typing import Any, Unpack

from torch import Tensor

from rmploss.models.flow import through
from rmploss.models.layers import AvgPool2d, MakeNeuron, MakeNorm, OverTime, conv3x3, encode, scaled
from rmploss.models.network import NetworkOptions, PooledNetwork
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d


class ConvNet(PooledNetwork):
    """Three 3x3 convolutions of 32, 64, 64 channels, pooling after the first two, one linear."""

    figure_layer = "lif2"

    def __init__(
        self,
        *,
        width: float = 1.0,
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[NetworkOptions],
    ) -> None:
        c1, c2, c3 = (scaled(c, width) for c in (32, 64, 64))
        super().__init__(features=c3, **options)
        self.conv1, self.lif1 = conv3x3(self.in_channels, c1, norm), neuron(c1)
        self.conv2, self.lif2 = conv3x3(c1, c2, norm), neuron(c2)
        self.conv3, self.lif3 = conv3x3(c2, c3, norm), neuron(c3)
        self.halve = OverTime(AvgPool2d(2))
        self.finish()

    def spikes(self, x: Tensor) -> Any:
        """The spikes of the third layer."""
        x = through(self.halve, encode(self.conv1, self.lif1, x, self.T))
        x = through(self.halve, self.conv2.fire(x, self.lif2))
        return self.conv3.fire(x, self.lif3)

    def heights_fold_into(self) -> dict[str, tuple[str, ...]]:
        """The next convolution, the linear layer at the end."""
        return {"lif1": ("conv2",), "lif2": ("conv3",), "lif3": ("head",)}
