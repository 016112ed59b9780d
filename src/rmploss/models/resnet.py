"""Spiking residual networks: ResNet20 and ResNet19 for small images, ResNet18/34 for ImageNet.

    block:  conv-norm-LIF-conv-norm, plus the shortcut, then LIF after the addition

Currents are added and spikes leave the block. branches=True is STBP-tdBN's rule for n = 2 branches
that are added: the norms at their ends have alpha / sqrt(2). Five different networks are called
"ResNet20" in this literature; the one here is the family's modified one (11.2 M parameters, three
stem convolutions, 64 to 512 channels), not the 0.27 M network of He et al.
"""

import math
from abc import abstractmethod
from itertools import pairwise
from typing import Any, ClassVar, Literal, Unpack

from torch import Tensor, nn

from rmploss.errors import UserError
from rmploss.models.flow import PassesSpikes, through
from rmploss.models.layers import (
    AvgPool2d,
    ConvNorm,
    MakeNeuron,
    MakeNorm,
    OverTime,
    Shortcut,
    conv1x1,
    conv3x3,
    encode,
    initialize,
    placed,
    scaled,
)
from rmploss.models.network import MakeHead, NetworkOptions, PooledNetwork, TimeOptions
from rmploss.models.sew import SEWBlock
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import Spikes

Connect = Literal["current", "add", "and", "iand"]
"""How the branches of a block meet: as currents in front of its neurons, or as spikes (sew.py)."""


class BasicBlock(PassesSpikes):
    """Two 3x3 convolutions around a shortcut; spikes in, spikes out, `[T, B, C, H, W]`."""

    reads_bits = True

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int,
        shortcut: nn.Module | None,
        neuron: MakeNeuron,
        norm: MakeNorm,
        last_norm: MakeNorm | None = None,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, norm, stride=stride)
        self.lif1 = placed(neuron(channels), "inner")
        self.conv2 = conv3x3(channels, channels, last_norm or norm)
        self.shortcut = shortcut or Shortcut()
        self.lif2 = placed(neuron(channels), "sum")

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """Spikes of the block."""
        inner = self.conv1.fire(x, self.lif1)
        return self.conv2.fire(inner, self.lif2, residual=through(self.shortcut, x))


def strided(in_channels: int, channels: int, stride: int, norm: MakeNorm) -> nn.Module | None:
    """The projection of ResNet19 and ImageNet: a strided 1x1 convolution; None for identity."""
    if stride == 1 and in_channels == channels:
        return None
    return conv1x1(in_channels, channels, norm, stride=stride)


def pooled(in_channels: int, channels: int, stride: int, norm: MakeNorm) -> nn.Module | None:
    """The projection of ResNet20: average pooling, then a 1x1 convolution; None for identity."""
    if stride == 1 and in_channels == channels:
        return None
    pool = AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False)
    return nn.Sequential(OverTime(pool), conv1x1(in_channels, channels, norm))


def branch(norm: MakeNorm) -> MakeNorm:
    """The norms at the end of one of two branches that are added: with alpha / sqrt(2)."""

    def make(channels: int) -> nn.Module:
        made = norm(channels)
        if not isinstance(made, TDBatchNorm2d):
            raise UserError("branches=True needs a norm with an alpha: norm=tdbn")
        made.rescale(1 / math.sqrt(2))
        return made

    return make


class StemOptions(TimeOptions, total=False):
    """Options of `_ResNet` that all its subclasses pass on."""

    in_channels: int
    branches: bool


class ResNetOptions(StemOptions, total=False):
    """The same, for networks of ten classes by default."""

    num_classes: int


class _ResNet(PooledNetwork):
    """Stages of basic blocks behind a stem that the subclasses add.

    stem_layers: how many convolutions and neurons it has: conv1, lif1, conv2, lif2, ...
    channels, blocks: of the stages, before width scales the channels; shortcut: the projection.
    stem_channels: of the spikes that the first stage reads; None: as many as it has itself.
    connect: "current" for `BasicBlock`, else the function of `SEWBlock`.
    """

    figure_layer = "layer1.1.lif1"
    stem_layers: ClassVar[int] = 1
    channels: ClassVar[tuple[int, ...]] = (64, 128, 256, 512)
    blocks: ClassVar[tuple[int, ...]] = (2, 2, 2, 2)
    shortcut: ClassVar[Literal["strided", "pooled"]] = "strided"

    def __init__(
        self,
        *,
        width: float,
        neuron: MakeNeuron,
        norm: MakeNorm,
        branches: bool = False,
        connect: Connect = "current",
        stem_channels: int | None = None,
        head: MakeHead | None = None,
        **options: Unpack[NetworkOptions],
    ) -> None:
        channels = tuple(scaled(c, width) for c in self.channels)
        super().__init__(features=channels[-1], head=head, **options)
        if branches and connect != "current":
            raise UserError('branches=True is for currents that are added: connect="current"')
        project = pooled if self.shortcut == "pooled" else strided
        last = branch(norm) if branches else norm
        self.connect = connect
        self.stages = len(channels)
        stem = stem_channels or channels[0]
        for stage, (before, after) in enumerate(pairwise((stem, *channels)), start=1):
            layer = nn.Sequential()
            for index in range(self.blocks[stage - 1]):
                stride = 2 if stage > 1 and index == 0 else 1
                source = before if index == 0 else after
                projection = project(source, after, stride, last)
                parts = {"stride": stride, "shortcut": projection, "neuron": neuron, "norm": norm}
                if connect == "current":
                    block = BasicBlock(source, after, **parts, last_norm=last)
                else:
                    block = SEWBlock(source, after, **parts, connect=connect)
                layer.append(block)
            self.add_module(f"layer{stage}", layer)

    @abstractmethod
    def stem(self, x: Tensor) -> Any:
        """What the first block reads, `[T, B, C, H, W]`."""

    def layers(self) -> list[nn.Module]:
        """The stages in order, whatever stands in their place."""
        return [self.get_submodule(f"layer{stage}") for stage in range(1, self.stages + 1)]

    def spikes(self, x: Tensor) -> Any:
        """The spikes of the last block."""
        x = self.stem(x)
        for layer in self.layers():
            x = through(layer, x)
        return x

    def heights_fold_into(self) -> dict[str, tuple[str, ...]]:
        """The next convolution of the stem or of the block; of a block's end, also a shortcut.

        The output of a `SEWBlock` joins the spikes of two layers: no kernel reads one alone.
        """
        found: dict[str, tuple[str, ...]] = {
            f"lif{n}": (f"conv{n + 1}",) for n in range(1, self.stem_layers)
        }
        if self.connect != "current":
            inner = [name for name, m in self.named_modules() if isinstance(m, SEWBlock)]
            return {**found, **{f"{name}.lif1": (f"{name}.conv2",) for name in inner}}
        last = f"lif{self.stem_layers}"
        for stage, layer in enumerate(self.layers(), start=1):
            for child, _ in layer.named_children():
                name = f"layer{stage}.{child}"
                found[last] = (f"{name}.conv1", f"{name}.shortcut")
                found[f"{name}.lif1"] = (f"{name}.conv2",)
                last = f"{name}.lif2"
        if isinstance(self.head, nn.Sequential):
            return {**found, last: ("head.0",), "head.1": ("head.2",)}
        return {**found, last: ("head",)}


class ResNet20(_ResNet):
    """The modified ResNet20 of the paper: 11,247,946 parameters for ten classes.

    Three 3x3 convolutions of 64 channels, average pooling (its output is multi-level: 0, 1/4, ..,
    1), stages of 64, 128, 256, 512 channels with two blocks each, one linear layer. width scales
    all channels. connect: "add", "and" or "iand" for the blocks of SEW ResNet (models/sew.py).
    """

    stem_layers = 3
    shortcut = "pooled"

    def __init__(
        self,
        *,
        width: float = 1.0,
        connect: Connect = "current",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[ResNetOptions],
    ) -> None:
        super().__init__(width=width, connect=connect, neuron=neuron, norm=norm, **options)
        c = scaled(self.channels[0], width)
        self.conv1, self.lif1 = conv3x3(self.in_channels, c, norm), neuron(c)
        self.conv2, self.lif2 = conv3x3(c, c, norm), neuron(c)
        self.conv3, self.lif3 = conv3x3(c, c, norm), neuron(c)
        self.stem_pool = OverTime(AvgPool2d(2))
        self.finish()

    def stem(self, x: Tensor) -> Any:
        """The pooled spikes of the third neurons."""
        x = encode(self.conv1, self.lif1, x, self.T)
        x = self.conv3.fire(self.conv2.fire(x, self.lif2), self.lif3, dense=False)
        return through(self.stem_pool, x)


class ResNet19(_ResNet):
    """ResNet19: a stem, stages of 128, 256, 512 channels with 3, 3, 2 blocks; 12,569,226 params.

    stem_width: 128 in the authors' networks, 64 in TET's. hidden_fc: None for one linear layer
    (the authors'), 256 for the two of STBP-tdBN and TET, with spiking neurons in between. init:
    "pytorch" starts the weights as PyTorch does (TET), "family" as the authors do. Two linear
    layers start as PyTorch starts them either way, as in re-implementations of STBP-tdBN: the
    family's deviation 1 / C_in is that of a last layer, and lets no hidden neuron fire.
    """

    channels = (128, 256, 512)
    blocks = (3, 3, 2)

    def __init__(
        self,
        *,
        width: float = 1.0,
        stem_width: int = 128,
        hidden_fc: int | None = None,
        init: Literal["family", "pytorch"] = "family",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[ResNetOptions],
    ) -> None:
        stem = scaled(stem_width, width)
        head = _two_layers(scaled(self.channels[-1], width), hidden_fc, neuron)
        super().__init__(
            width=width, stem_channels=stem, neuron=neuron, norm=norm, head=head, **options
        )
        self.conv1, self.lif1 = conv3x3(self.in_channels, stem, norm), neuron(stem)
        if init == "family":
            self.finish()

    def finish(self) -> None:
        """The family's initialization, but not of a hidden linear layer and the one behind it."""
        for module in self.children():
            if not isinstance(module, nn.Sequential) or module is not self.head:
                initialize(module)

    def stem(self, x: Tensor) -> Any:
        """The spikes of the first neurons."""
        return encode(self.conv1, self.lif1, x, self.T)


class CIFARResNet18(_ResNet):
    """ResNet18 for 32x32 images: 11,173,962 parameters for ten classes.

    A 3x3 stem without pooling, stages of 64, 128, 256, 512 channels with two blocks each, strided
    1x1 projections, one linear layer. width scales all channels.
    """

    def __init__(
        self,
        *,
        width: float = 1.0,
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[ResNetOptions],
    ) -> None:
        super().__init__(width=width, neuron=neuron, norm=norm, **options)
        c = scaled(self.channels[0], width)
        self.conv1, self.lif1 = conv3x3(self.in_channels, c, norm), neuron(c)
        self.finish()

    def stem(self, x: Tensor) -> Any:
        """The spikes of the first neurons."""
        return encode(self.conv1, self.lif1, x, self.T)


def _two_layers(features: int, hidden: int | None, neuron: MakeNeuron) -> MakeHead | None:
    if hidden is None:
        return None
    return lambda num_classes: nn.Sequential(
        OverTime(nn.Linear(features, hidden)),
        neuron(hidden),
        OverTime(nn.Linear(hidden, num_classes)),
    )


class ImageNetResNet(_ResNet):
    """The ImageNet form: a 7x7 stem of stride 2, pooling 3x3 of stride 2, four stages.

    blocks: of the four stages; stem_pooling: what the pooling takes, the mean or the maximum.
    """

    stem_pooling: ClassVar[type[nn.AvgPool2d | nn.MaxPool2d]] = nn.AvgPool2d

    def __init__(
        self,
        *,
        num_classes: int = 1000,
        width: float = 1.0,
        connect: Connect = "current",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[StemOptions],
    ) -> None:
        super().__init__(
            num_classes=num_classes,
            width=width,
            connect=connect,
            neuron=neuron,
            norm=norm,
            **options,
        )
        c = scaled(self.channels[0], width)
        conv = nn.Conv2d(self.in_channels, c, 7, stride=2, padding=3, bias=False)
        self.conv1, self.lif1 = ConvNorm(conv, norm(c)), neuron(c)
        self.stem_pool = OverTime(self.stem_pooling(3, stride=2, padding=1))
        self.finish()

    def stem(self, x: Tensor) -> Any:
        """The pooled spikes of the first neurons."""
        return through(self.stem_pool, encode(self.conv1, self.lif1, x, self.T))


class ImageNetOptions(ResNetOptions, total=False):
    """Options of ResNet18 and ResNet34: those of `ImageNetResNet`, but for `connect`."""

    width: float
    neuron: MakeNeuron
    norm: MakeNorm


class ResNet18(ImageNetResNet):
    """ResNet18 for 224x224 images: 11,689,512 parameters for 1000 classes."""

    def __init__(self, **options: Unpack[ImageNetOptions]) -> None:
        super().__init__(**options)


class ResNet34(ImageNetResNet):
    """ResNet34 for 224x224 images: 21,797,672 parameters for 1000 classes."""

    blocks = (3, 4, 6, 3)

    def __init__(self, **options: Unpack[ImageNetOptions]) -> None:
        super().__init__(**options)
