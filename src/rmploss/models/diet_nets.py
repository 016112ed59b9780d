"""Diet-SNN's networks (Rathi and Roy 2020): no norm, no bias, dropout, and a head on a 2x2 map.

    VGG16       13 convolutions, four average poolings, 2048-4096-4096-K     39,917,248 parameters
    ResNet20    three stem convolutions, pooling, 64-128-256-512 x 2, 2048-K 11,253,440

for ten classes and neurons without parameters. The ANN that the training starts from is the same
network with the neuron "relu", T = 1; `models.hybrid` makes the spiking one of it.
"""

from typing import Unpack

from torch import Tensor, nn

from rmploss.models.dropout import Dropout
from rmploss.models.flow import PassesSpikes, through
from rmploss.models.layers import (
    AvgPool2d,
    MakeNeuron,
    MakeNorm,
    OverTime,
    Shortcut,
    conv1x1,
    conv3x3,
    encode,
    halved,
    in_sequence,
    placed,
    scaled,
)
from rmploss.models.network import DataOptions, Readout, SpikingNetwork
from rmploss.models.vgg import STAGES
from rmploss.neurons.diet import Diet
from rmploss.norm import NoNorm
from rmploss.ops import Spikes


class _DietNetwork(SpikingNetwork):
    """What both share: weights drawn for rectified sums, and a dropout with one mask."""

    def finish(self) -> None:
        """He's initialization, N(0, 2 / fan-in): without norms, the signal keeps its size."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


class DietVGG16(_DietNetwork):
    """VGG16 of Diet-SNN, for images of `image_size` pixels a side.

    dropout: behind all neurons but those before a pooling; head_dropout: behind the two hidden
    linear layers, None for the same. width scales all channels and hidden layers. norm: none in the
    paper; another one stands behind each convolution.
    """

    figure_layer = "layers.lif2_1"

    def __init__(
        self,
        *,
        T: int = 5,
        width: float = 1.0,
        image_size: int = 32,
        dropout: float = 0.2,
        head_dropout: float | None = None,
        readout: Readout = "sum",
        neuron: MakeNeuron = Diet,
        norm: MakeNorm = NoNorm,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(T=T, readout=readout, image_size=image_size, **options)
        source, poolings = self.in_channels, len(STAGES) - 1
        self.layers = nn.Sequential()
        for stage, channels in enumerate(STAGES, start=1):
            for index, count in enumerate(channels, start=1):
                name, target = f"{stage}_{index}", scaled(count, width)
                self.layers.add_module(f"conv{name}", conv3x3(source, target, norm))
                self.layers.add_module(f"lif{name}", neuron(target))
                if index < len(channels) or stage > poolings:
                    self.layers.add_module(f"dropout{name}", Dropout(dropout, one_mask=True))
                source = target
            if stage <= poolings:
                self.layers.add_module(f"pool{stage}", OverTime(AvgPool2d(2)))
        features, hidden = source * halved(image_size, poolings) ** 2, scaled(4096, width)
        p = dropout if head_dropout is None else head_dropout
        self.fc1 = OverTime(nn.Linear(features, hidden, bias=False))
        self.lif1, self.dropout1 = neuron(hidden), Dropout(p, one_mask=True)
        self.fc2 = OverTime(nn.Linear(hidden, hidden, bias=False))
        self.lif2, self.dropout2 = neuron(hidden), Dropout(p, one_mask=True)
        self.head = OverTime(nn.Linear(hidden, self.num_classes, bias=False))
        self.finish()

    def outputs(self, x: Tensor) -> Tensor:
        """The last linear layer at every step."""
        x = in_sequence(self.layers, x, self.T)
        x = self.dropout1(self.lif1(self.fc1(x.flatten(2))))
        return self.head(self.dropout2(self.lif2(self.fc2(x))))


class DietBlock(PassesSpikes):
    """conv-neurons-dropout-conv, plus the shortcut, then neurons; `[T, B, C, H, W]`."""

    reads_bits = True

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        dropout: float,
        neuron: MakeNeuron,
        norm: MakeNorm,
    ) -> None:
        super().__init__()
        self.conv1, self.lif1 = (
            conv3x3(in_channels, channels, norm, stride=stride),
            placed(neuron(channels), "inner"),
        )
        self.dropout = Dropout(dropout, one_mask=True)
        self.conv2 = conv3x3(channels, channels, norm)
        self.lif2 = placed(neuron(channels), "sum")
        same = stride == 1 and in_channels == channels
        self.shortcut = Shortcut() if same else conv1x1(in_channels, channels, norm, stride=stride)

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """Spikes of the block."""
        inner = through(self.dropout, self.conv1.fire(x, self.lif1))
        return self.conv2.fire(inner, self.lif2, residual=through(self.shortcut, x))


class DietResNet20(_DietNetwork):
    """ResNet20 of Diet-SNN, for images of `image_size` pixels a side.

    dropout: behind the first two neurons of the stem and the inner ones of each block. width scales
    all channels. norm: none in the paper; another one stands behind each convolution.
    """

    figure_layer = "layers.1.lif1"

    def __init__(
        self,
        *,
        T: int = 5,
        width: float = 1.0,
        image_size: int = 32,
        dropout: float = 0.2,
        readout: Readout = "sum",
        neuron: MakeNeuron = Diet,
        norm: MakeNorm = NoNorm,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(T=T, readout=readout, image_size=image_size, **options)
        channels = [scaled(c, width) for c in (64, 64, 128, 128, 256, 256, 512, 512)]
        c = channels[0]
        self.conv1, self.lif1 = conv3x3(self.in_channels, c, norm), neuron(c)
        self.conv2, self.lif2 = conv3x3(c, c, norm), neuron(c)
        self.conv3, self.lif3 = conv3x3(c, c, norm), neuron(c)
        self.dropout1, self.dropout2 = (Dropout(dropout, one_mask=True) for _ in range(2))
        self.stem_pool = OverTime(AvgPool2d(2))
        self.layers = nn.Sequential()
        for index, target in enumerate(channels):
            stride = 2 if index in (2, 4, 6) else 1
            block = DietBlock(c, target, stride=stride, dropout=dropout, neuron=neuron, norm=norm)
            self.layers.append(block)
            c = target
        side = halved(image_size, 4)
        self.head = OverTime(nn.Linear(c * side**2, self.num_classes, bias=False))
        self.finish()

    def outputs(self, x: Tensor) -> Tensor:
        """The linear layer at every step, on the flattened spikes."""
        x = through(self.dropout1, encode(self.conv1, self.lif1, x, self.T))
        x = through(self.dropout2, self.conv2.fire(x, self.lif2))
        x = through(self.stem_pool, self.conv3.fire(x, self.lif3))
        return self.head(through(self.layers, x).flatten(2))
