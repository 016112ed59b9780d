"""CIFARNet of STBP (Wu et al., AAAI 2019): five convolutions, three spiking linear layers, votes.

    128C3 - 256C3 - AP2 - 512C3 - AP2 - 1024C3 - 512C3 - 1024FC - 512FC - voting

C3 is a padded 3x3 convolution, AP2 average pooling by two, FC a linear layer, each before neurons.
"""

import math
from typing import Unpack

from torch import Tensor, nn

from rmploss.models.dropout import Dropout
from rmploss.models.flow import through
from rmploss.models.layers import (
    AvgPool2d,
    MakeNeuron,
    MakeNorm,
    OverTime,
    Shortcut,
    conv3x3,
    encode,
    halved,
    scaled,
)
from rmploss.models.network import DataOptions, Readout
from rmploss.models.neunorm import Constraint, NeuNorm
from rmploss.models.voting import VOTERS, VotingNetwork
from rmploss.neurons import LIF
from rmploss.norm import NoNorm

VARIANCE = 6.0
"""Times fan-in, of the weights at the start, dimensionless; ours.

Spikes of rate r make a current of variance 6 r, and a neuron with V_th = 0.75 passes it at a rate
P(|z| > 0.75 / sqrt(6 r)) / 2, z normal. The rates of a chain of layers then approach 0.28, from
any rate above 0.03. With He's 2 there is no rate but 0 that they approach: such a network
lives by the factor 2 of its dropout, in training alone.
"""


class CIFARNet(VotingNetwork):
    """CIFARNet: 45,049,188 parameters for ten classes and 32x32 images, without NeuNorm.

    Convolutions have a bias and, as published, no norm. No neurons follow a pooling: its means go
    on. Dropout, with a new mask at every step, stands before all layers but the first and the last.
    neunorm: a `NeuNorm` behind the neurons of each convolution, under `constraint`. width scales
    channels and hidden layers. The weights start normal with variance `VARIANCE` / fan-in: as
    PyTorch starts them, and the authors' code, no neuron fires from the third layer on, and no
    gradient flows.
    """

    figure_layer = "lif2"

    def __init__(
        self,
        *,
        T: int = 12,
        width: float = 1.0,
        image_size: int = 32,
        dropout: float = 0.5,
        neunorm: bool = False,
        constraint: Constraint = "k+vF=1",
        readout: Readout = "mean",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = NoNorm,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(T=T, readout=readout, image_size=image_size, **options)
        c1, c2, c3, c4, c5 = (scaled(c, width) for c in (128, 256, 512, 1024, 512))
        h1, h2, votes = scaled(1024, width), scaled(512, width), VOTERS * self.num_classes
        quarter, half = halved(image_size, 2), halved(image_size, 1)
        self.conv1, self.lif1 = conv3x3(self.in_channels, c1, norm, bias=True), neuron(c1)
        self.conv2, self.lif2 = conv3x3(c1, c2, norm, bias=True), neuron(c2)
        self.conv3, self.lif3 = conv3x3(c2, c3, norm, bias=True), neuron(c3)
        self.conv4, self.lif4 = conv3x3(c3, c4, norm, bias=True), neuron(c4)
        self.conv5, self.lif5 = conv3x3(c4, c5, norm, bias=True), neuron(c5)
        self.fc1, self.lif6 = OverTime(nn.Linear(c5 * quarter**2, h1)), neuron(h1)
        self.fc2, self.lif7 = OverTime(nn.Linear(h1, h2)), neuron(h2)
        self.fc3, self.lif8 = OverTime(nn.Linear(h2, votes)), neuron(votes)

        def inhibit(channels: int, size: int) -> nn.Module:
            return NeuNorm(channels, size, constraint=constraint) if neunorm else Shortcut()

        self.neunorm1, self.neunorm2 = inhibit(c1, image_size), inhibit(c2, image_size)
        self.neunorm3 = inhibit(c3, half)
        self.neunorm4, self.neunorm5 = inhibit(c4, quarter), inhibit(c5, quarter)
        self.halve = OverTime(AvgPool2d(2))
        self.dropout = Dropout(dropout)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                nn.init.normal_(module.weight, 0, math.sqrt(VARIANCE / fan_in))
                assert module.bias is not None
                nn.init.zeros_(module.bias)

    def voters(self, x: Tensor) -> Tensor:
        """The spikes of the last linear layer."""
        drop = self.dropout
        x = through(self.neunorm1, encode(self.conv1, self.lif1, x, self.T))
        x = through(self.neunorm2, self.conv2.fire(through(drop, x), self.lif2))
        x = through(
            self.neunorm3, self.conv3.fire(through(drop, through(self.halve, x)), self.lif3)
        )
        x = through(
            self.neunorm4, self.conv4.fire(through(drop, through(self.halve, x)), self.lif4)
        )
        x = through(self.neunorm5, self.conv5.fire(through(drop, x), self.lif5)).flatten(2)
        x = self.lif6(self.fc1(drop(x)))
        x = self.lif7(self.fc2(drop(x)))
        return self.lif8(self.fc3(x))
