"""TSSL-BP's networks for CIFAR-10: five convolutions, three linear layers, all of them spiking.

    CNN1    96C3-256C3-P2-384C3-P2-384C3-256C3-1024-1024-10      21,156,384 parameters
    CNN2    128C3-256C3-P2-512C3-P2-1024C3-512C3-1024-512-10     44,999,040 parameters: "CIFARNet"

No bias and no norm. Post-synaptic currents, not spikes, go from layer to layer. The image is such a
current too: it is filtered once, as if its values were spikes at every step,

    syn(t) = (1 - 1/tau_s) syn(t-1) + x(t);   a0(t) = syn(t) / tau_s

Pooling is the sum over 2x2 times 1.1: without a norm, the mean would starve the layers behind it.
The classes are ten spiking neurons, read out by the sum of their currents over time.
"""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from rmploss.models.dropout import Dropout
from rmploss.models.flow import through
from rmploss.models.layers import (
    AvgPool2d,
    MakeNeuron,
    MakeNorm,
    OverTime,
    conv3x3,
    encode,
    halved,
    scaled,
)
from rmploss.models.network import DataOptions, Readout, SpikingNetwork
from rmploss.neurons.tssl import TSSL, post_synaptic
from rmploss.norm import NoNorm
from rmploss.ops import Spikes, dense_of

CHANNELS = {"cnn1": (96, 256, 384, 384, 256), "cnn2": (128, 256, 512, 1024, 512)}
HIDDEN = {"cnn1": (1024, 1024), "cnn2": (1024, 512)}
POOL_GAIN = 1.1
CONV_GAIN = 5.0
LARGEST = 4.0
"""Weights stay in [-4, 4]."""


class RowDropout(Dropout):
    """Dropout with one mask for all steps, of whole rows of a channel or of single units.

    p: the share that is 0 in training.
    """

    def __init__(self, p: float) -> None:
        super().__init__(p, one_mask=True)

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """x `[T, B, C, H, W]`, where the W values of a row share their fate, or `[T, B, C]`."""
        if x.ndim == 3 or not self.training:
            return super().forward_spikes(x)
        x = dense_of(x)
        rows = super().forward_spikes(x.new_ones(1, *x.shape[1:-1]))
        return x * dense_of(rows).unsqueeze(-1)


class SumPool2d(AvgPool2d):
    """The sum over 2x2 times 1.1, `[N, C, H, W]`; nothing is learnt."""

    def __init__(self) -> None:
        super().__init__(2)

    def forward(self, input: Tensor) -> Tensor:
        """The sums `[N, C, H // 2, W // 2]`."""
        return super().forward(input) * (4 * POOL_GAIN)


class TSSLCifarNet(SpikingNetwork):
    """CNN2 or CNN1 of TSSL-BP, for images of `image_size` pixels a side.

    variant: which; init: of the convolutions, "kaiming" is normal, 2 / fan-in, times 5 (the code of
    the paper's numbers), "default" PyTorch's uniform one times 5 (the code since October 2020);
    linear layers are kaiming-normal either way. dropout: after conv1, both poolings, conv4, conv5
    and the hidden linear layers. width scales all channels and hidden layers.

    The first neurons' `tau_s` filters the input; other neurons than TSSL get the input unfiltered.
    """

    figure_layer = "lif2"

    def __init__(
        self,
        *,
        T: int = 5,
        width: float = 1.0,
        variant: Literal["cnn1", "cnn2"] = "cnn2",
        image_size: int = 32,
        init: Literal["kaiming", "default"] = "kaiming",
        dropout: float = 0.2,
        readout: Readout = "sum",
        neuron: MakeNeuron = TSSL,
        norm: MakeNorm = NoNorm,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(T=T, readout=readout, image_size=image_size, **options)
        c1, c2, c3, c4, c5 = (scaled(c, width) for c in CHANNELS[variant])
        h1, h2 = (scaled(h, width) for h in HIDDEN[variant])
        self.conv1, self.lif1 = conv3x3(self.in_channels, c1, norm), neuron(c1)
        self.conv2, self.lif2 = conv3x3(c1, c2, norm), neuron(c2)
        self.conv3, self.lif3 = conv3x3(c2, c3, norm), neuron(c3)
        self.conv4, self.lif4 = conv3x3(c3, c4, norm), neuron(c4)
        self.conv5, self.lif5 = conv3x3(c4, c5, norm), neuron(c5)
        self.fc1, self.lif6 = _linear(c5 * halved(image_size, 2) ** 2, h1), neuron(h1)
        self.fc2, self.lif7 = _linear(h1, h2), neuron(h2)
        self.fc3, self.lif8 = _linear(h2, self.num_classes), neuron(self.num_classes)
        self.pool = OverTime(SumPool2d())
        self.drop = RowDropout(dropout)
        self.init = init
        self.finish()

    def finish(self) -> None:
        """The paper's initialization."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if self.init == "kaiming":
                    nn.init.kaiming_normal_(module.weight)
                else:
                    module.reset_parameters()
                with torch.no_grad():
                    module.weight.mul_(CONV_GAIN)
            elif isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def constrain(self) -> None:
        """Weights of convolutions and linear layers back into [-4, 4], after every step."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.weight.clamp_(-LARGEST, LARGEST)

    def outputs(self, x: Tensor) -> Tensor:
        """The post-synaptic currents of the output neurons."""
        a = self.conv2.fire(through(self.drop, self._first(x)), self.lif2)
        a = through(self.drop, through(self.pool, a))
        a = through(self.pool, self.conv3.fire(a, self.lif3))
        a = through(self.drop, self.conv4.fire(through(self.drop, a), self.lif4))
        a = through(self.drop, self.conv5.fire(a, self.lif5))
        a = self.drop(self.lif6(self.fc1(a.flatten(2))))
        a = self.drop(self.lif7(self.fc2(a)))
        return self.lif8(self.fc3(a))

    def _first(self, x: Tensor) -> Tensor:
        tau_s = getattr(self.lif1, "tau_s", None)
        if tau_s is None:
            return encode(self.conv1, self.lif1, x, self.T)
        if x.ndim == 5:
            return self.conv1.fire(post_synaptic(x, tau_s), self.lif1)
        growth = post_synaptic(x.new_ones(self.T, 1, 1, 1, 1), tau_s)
        if self.conv1.conv.bias is not None or self.conv1.norm is not None:
            return self.conv1.fire(growth * x, self.lif1)
        # Without a bias the current is linear in the image: one convolution for all steps.
        return self.lif1(growth * self.conv1.conv(x))


def _linear(features: int, units: int) -> OverTime:
    return OverTime(nn.Linear(features, units, bias=False))
