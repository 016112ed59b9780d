"""PLIFNet (Fang et al., ICCV 2021): convolutions, max pooling, two spiking linear layers, votes.

    CIFAR-10        {256C3 x 3 - MP2} x 2 - dropout - 2048FC - 100FC - voting
    CIFAR10-DVS     {128C3 - MP2} x 4 - dropout - 2048FC - dropout - 100FC - voting

C3 is a padded 3x3 convolution with its norm, MP2 max pooling by two, FC a linear layer without
bias, each before neurons.
"""

from typing import ClassVar, TypedDict, Unpack

from torch import Tensor, nn

from rmploss.models.dropout import Dropout
from rmploss.models.layers import (
    MakeNeuron,
    MakeNorm,
    OverTime,
    conv3x3,
    halved,
    in_sequence,
    scaled,
)
from rmploss.models.network import Readout
from rmploss.models.voting import VOTERS, VotingNetwork
from rmploss.neurons.plif import PLIF
from rmploss.norm_step import StepBatchNorm2d


class _Options(TypedDict, total=False):
    """Options of `_PLIFNet` that both networks pass on."""

    num_classes: int
    width: float
    dropout: float
    readout: Readout
    neuron: MakeNeuron
    norm: MakeNorm


class _PLIFNet(VotingNetwork):
    """Stages of convolutions, a max pooling behind each, and two linear layers without bias.

    channels: of all convolutions; stages: how many convolutions each has. Dropout keeps one mask
    for all steps. The weights start as PyTorch starts them.
    """

    channels: ClassVar[int]
    stages: ClassVar[tuple[int, ...]]

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int = 10,
        T: int,
        width: float = 1.0,
        image_size: int,
        dropout: float = 0.5,
        readout: Readout = "mean",
        neuron: MakeNeuron = PLIF,
        norm: MakeNorm = StepBatchNorm2d,
    ) -> None:
        data = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
        super().__init__(**data, T=T, readout=readout)
        channels, hidden = scaled(self.channels, width), scaled(2048, width)
        side, votes = halved(image_size, len(self.stages)), VOTERS * num_classes
        self.layers = nn.Sequential()
        source = in_channels
        for stage, convolutions in enumerate(self.stages, start=1):
            for index in range(1, convolutions + 1):
                self.layers.add_module(f"conv{stage}_{index}", conv3x3(source, channels, norm))
                self.layers.add_module(f"lif{stage}_{index}", neuron(channels))
                source = channels
            self.layers.add_module(f"pool{stage}", OverTime(nn.MaxPool2d(2)))
        self.dropout = Dropout(dropout, one_mask=True)
        self.fc1 = OverTime(nn.Linear(channels * side**2, hidden, bias=False))
        self.lif1 = neuron(hidden)
        self.fc2 = OverTime(nn.Linear(hidden, votes, bias=False))
        self.lif2 = neuron(votes)

    def hidden(self, x: Tensor) -> Tensor:
        """The spikes `[T, B, 2048]` of the first linear layer."""
        x = in_sequence(self.layers, x, self.T)
        return self.lif1(self.fc1(self.dropout(x.flatten(2))))


class PLIFNet(_PLIFNet):
    """PLIFNet for CIFAR-10: 36,718,344 parameters with PLIF neurons. width scales all layers."""

    figure_layer = "layers.lif1_2"
    channels, stages = 256, (3, 3)

    def __init__(
        self, *, in_channels: int = 3, T: int = 8, image_size: int = 32, **options: Unpack[_Options]
    ) -> None:
        super().__init__(in_channels=in_channels, T=T, image_size=image_size, **options)

    def voters(self, x: Tensor) -> Tensor:
        """The spikes of the last linear layer; the authors' code has no dropout before it."""
        return self.lif2(self.fc2(self.hidden(x)))


class PLIFNetDVS(_PLIFNet):
    """PLIFNet for CIFAR10-DVS, 128x128: 17,427,718 parameters with PLIF neurons.

    2048 hidden neurons, as in the authors' code and text; their table prints 512.
    """

    figure_layer = "layers.lif2_1"
    channels, stages = 128, (1, 1, 1, 1)

    def __init__(
        self,
        *,
        in_channels: int = 2,
        T: int = 20,
        image_size: int = 128,
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(in_channels=in_channels, T=T, image_size=image_size, **options)

    def voters(self, x: Tensor) -> Tensor:
        """The spikes of the last linear layer."""
        return self.lif2(self.fc2(self.dropout(self.hidden(x))))
