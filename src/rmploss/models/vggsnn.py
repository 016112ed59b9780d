"""VGGSNN of TET (Deng et al., ICLR 2022): eight convolutions in pairs, one linear layer on the map.

    64C3 - 128C3 - AP2 - {256C3 x 2 - AP2} - {512C3 x 2 - AP2} x 2 - FC

C3 is a padded 3x3 convolution with its norm and neurons, AP2 average pooling by two.
"""

from itertools import pairwise

from torch import Tensor, nn

from rmploss.models.layers import (
    AvgPool2d,
    MakeNeuron,
    MakeNorm,
    OverTime,
    conv3x3,
    halved,
    in_sequence,
    scaled,
)
from rmploss.models.network import Readout, SpikingNetwork
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d

CHANNELS = (64, 128, 256, 256, 512, 512, 512, 512)
"""Of the convolutions; the map is halved behind every second one."""


class VGGSNN(SpikingNetwork):
    """VGGSNN: 9,271,498 parameters for ten classes and 2x48x48 frames.

    Convolutions have a bias before the norm. strided: the second of each pair has stride 2 and
    there is no pooling (VGGSNNwoAP), so that only spikes flow. The convolutions start normal with
    variance 2 / (9 C_out), all else as in PyTorch. width scales all channels.
    """

    figure_layer = "layers.lif2"

    def __init__(
        self,
        *,
        in_channels: int = 2,
        num_classes: int = 10,
        T: int = 10,
        width: float = 1.0,
        image_size: int = 48,
        strided: bool = False,
        readout: Readout = "mean",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
    ) -> None:
        data = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
        super().__init__(**data, T=T, readout=readout)
        channels = tuple(scaled(c, width) for c in CHANNELS)
        side = halved(image_size, len(channels) // 2)
        self.layers = nn.Sequential()
        for index, (before, after) in enumerate(pairwise((in_channels, *channels)), start=1):
            halve = index % 2 == 0
            stride = 2 if halve and strided else 1
            conv = conv3x3(before, after, norm, stride=stride, bias=True)
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
            self.layers.add_module(f"conv{index}", conv)
            self.layers.add_module(f"lif{index}", neuron(after))
            if halve and not strided:
                self.layers.add_module(f"pool{index // 2}", OverTime(AvgPool2d(2)))
        self.head = OverTime(nn.Linear(channels[-1] * side**2, num_classes))

    def outputs(self, x: Tensor) -> Tensor:
        """The linear layer on all positions of the last map."""
        x = in_sequence(self.layers, x, self.T)
        return self.head(x.flatten(2))
