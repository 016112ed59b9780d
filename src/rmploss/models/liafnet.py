"""LIAF-Net (Wu et al., TNNLS 2021) for CIFAR10-DVS, in the form of its public code.

    {C3 - AP2} x 4 of 32, 64, 128, 256 channels - 512 FC - 10 FC

C3 is a padded 3x3 convolution with bias and its norm, AP2 average pooling by two, which drops a
last odd row, FC a linear layer without norm; cells behind each AP2 and FC. 42x42 pixels become
2x2, and the network has 919,018 parameters.
"""

from typing import Any

import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.models.flow import PassesSpikes, through
from rmploss.models.layers import (
    AvgPool2d,
    MakeNeuron,
    MakeNorm,
    OverTime,
    conv3x3,
    fire,
    scaled,
)
from rmploss.models.network import Readout, SpikingNetwork
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import Spikes, dense_of

CHANNELS, HIDDEN = (32, 64, 128, 256), 512
BIAS = 0.5
"""Where all biases start: at the threshold of the published cells."""


class PooledBlock(PassesSpikes):
    """Convolution and norm, average pooling by two, neurons; `[T, B, C, H, W]`."""

    def __init__(
        self, in_channels: int, channels: int, *, neuron: MakeNeuron, norm: MakeNorm
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, norm, bias=True)
        self.halve = OverTime(AvgPool2d(2))
        self.lif1 = neuron(channels)

    def forward_spikes(self, x: Tensor | Spikes, repeats: int = 1) -> Any:
        """The output of the neurons; repeats: x stands for that many equal steps."""
        current = dense_of(through(self.halve, through(self.conv1, x, repeats=repeats)))
        if repeats > 1:
            current = current.expand(repeats, *current.shape[1:])
        return fire(current, None, self.lif1)


class LIAFNet(SpikingNetwork):
    """Four convolutions and two linear layers, cells behind each. width scales all but the classes.

    image_size: side of the images, at least 16.
    """

    figure_layer = "block2.lif1"

    def __init__(
        self,
        *,
        in_channels: int = 2,
        num_classes: int = 10,
        T: int = 10,
        width: float = 1.0,
        image_size: int = 42,
        readout: Readout = "mean",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
    ) -> None:
        data = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
        super().__init__(**data, T=T, readout=readout)
        side, source = pooled_side(image_size), in_channels
        for index, wide in enumerate(CHANNELS, start=1):
            channels = scaled(wide, width)
            block = PooledBlock(source, channels, neuron=neuron, norm=norm)
            self.add_module(f"block{index}", block)
            source = channels
        hidden = scaled(HIDDEN, width)
        self.fc1 = OverTime(nn.Linear(source * side**2, hidden))
        self.lif1 = neuron(hidden)
        self.fc2 = OverTime(nn.Linear(hidden, num_classes))
        self.lif2 = neuron(num_classes)
        self.finish()

    def outputs(self, x: Tensor) -> Tensor:
        """The outputs `[T, B, num_classes]` of the last cells."""
        static = x.ndim == 4
        x, repeats = (x.unsqueeze(0), self.T) if static else (x, 1)
        for index in range(1, len(CHANNELS) + 1):
            x = through(self.get_submodule(f"block{index}"), x, repeats=repeats)
            repeats = 1
        return self.lif2(self.fc2(self.lif1(self.fc1(x.flatten(2)))))

    def finish(self) -> None:
        """Weights from N(0, 2 / inputs), biases 1/2."""
        start(self)


def pooled_side(image_size: int) -> int:
    """The side of a map after four poolings by two; `UserError` where nothing is left of it."""
    if image_size < 16:
        problem = Problem(f"image_size = {image_size}", "must be at least 16", "CIFAR10-DVS: 42")
        raise UserError("bad network", [problem])
    return image_size // 16


def start(net: nn.Module) -> None:
    """The initialization of the public code: weights from N(0, 2 / inputs), biases at `BIAS`."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
                if module.bias is not None:
                    nn.init.constant_(module.bias, BIAS)
