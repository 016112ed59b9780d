"""PreAct-ResNet18 of DSR (Meng et al., CVPR 2022): neurons before convolutions, 32x32 images.

    stem     conv 3x3, once for a static image; no norm, no neurons
    block    x <- SN(BN(x));  y = conv2(SN(BN(conv1(x)))) + shortcut(x)
    head     SN(BN(.)), the mean over space, SN, linear layer, BN, SN: trains of the classes

The shortcut starts from spikes; sums are real numbers, and the neurons of the next block read them.
11,176,945 parameters for ten classes with the threshold of each of its 19 DSR layers.
"""

from itertools import pairwise
from typing import Literal, Unpack

from torch import Tensor, nn

from rmploss.conv import SpikeConv2d
from rmploss.errors import Problem, UserError
from rmploss.models.flow import PassesSpikes, through
from rmploss.models.layers import (
    ConvNorm,
    MakeNeuron,
    MakeNorm,
    OverTime,
    Shortcut,
    conv3x3,
    fire,
    placed,
    scaled,
)
from rmploss.models.network import DataOptions, Readout, SpikingNetwork
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import Spikes, dense_of


class PreActBlock(PassesSpikes):
    """Norm and neurons, two 3x3 convolutions with biases, a shortcut around these.

    Currents `[T, B, C, H, W]` in and out.
    """

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, neuron: MakeNeuron, norm: MakeNorm
    ) -> None:
        super().__init__()
        self.norm1, self.lif1 = norm(in_channels), placed(neuron(in_channels), "sum")
        self.conv1 = conv3x3(in_channels, channels, norm, stride=stride, bias=True)
        self.lif2 = placed(neuron(channels), "inner")
        self.conv2 = OverTime(SpikeConv2d(channels, channels, 3, padding=1))
        self.shortcut: nn.Module = Shortcut()
        if stride != 1 or in_channels != channels:
            self.shortcut = OverTime(SpikeConv2d(in_channels, channels, 1, stride=stride))

    def forward_spikes(self, x: Tensor | Spikes, repeats: int = 1) -> Tensor:
        """The sum of both branches; repeats: x stands for that many equal steps."""
        spikes = fire(dense_of(x), self.norm1, self.lif1, repeats=repeats)
        inner = self.conv1.fire(spikes, self.lif2)
        return through(self.conv2, inner) + dense_of(through(self.shortcut, spikes))


class PreActResNet18(SpikingNetwork):
    """Four stages of two blocks, 64 to 512 channels, and a spiking head.

    readout: "weighted" is DSR's: the mean over time for neurons without leak, weighted for leaky
    ones, as the last neurons define it; "sum" and "mean" go with any neurons.
    """

    figure_layer = "layer1.1.lif1"

    def __init__(
        self,
        *,
        T: int = 20,
        width: float = 1.0,
        readout: Literal["sum", "mean", "weighted"] = "sum",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[DataOptions],
    ) -> None:
        over_time: Readout = "mean" if readout == "weighted" else readout
        super().__init__(T=T, readout=over_time, **options)
        channels = tuple(scaled(c, width) for c in (64, 128, 256, 512))
        first, last = channels[0], channels[-1]
        self.conv1 = OverTime(SpikeConv2d(self.in_channels, first, 3, padding=1, bias=False))
        for stage, (before, after) in enumerate(pairwise((first, *channels)), start=1):
            stride = 1 if stage == 1 else 2
            layer = nn.Sequential(
                PreActBlock(before, after, stride=stride, neuron=neuron, norm=norm),
                PreActBlock(after, after, stride=1, neuron=neuron, norm=norm),
            )
            self.add_module(f"layer{stage}", layer)
        self.norm1, self.lif1 = norm(last), placed(neuron(last), "sum")
        self.pool = OverTime(nn.AdaptiveAvgPool2d(1))
        self.lif2 = neuron(last)
        # The linear layer, on a map of one pixel: its norm folds like any other.
        self.head = ConvNorm(SpikeConv2d(last, self.num_classes, 1), norm(self.num_classes))
        self.lif3 = neuron(self.num_classes)
        if readout == "weighted":
            self.readout = _readout_of(self.lif3)
        self.finish()

    def outputs(self, x: Tensor) -> Tensor:
        """The trains `[T, B, num_classes]` of the last neurons."""
        static = x.ndim == 4
        x, repeats = (x.unsqueeze(0), self.T) if static else (x, 1)
        x = self.conv1(x)
        for stage in range(1, 5):
            for block in self.get_submodule(f"layer{stage}").children():
                x, repeats = block(x, repeats=repeats), 1
        x = self.lif2(dense_of(through(self.pool, fire(x, self.norm1, self.lif1))))
        return self.head.fire(x, self.lif3).flatten(2)

    def heights_fold_into(self) -> dict[str, tuple[str, ...]]:
        """A block's spikes go to its convolution and its shortcut, the head's to the linear layer.

        Left out: the neurons before the pooling and the last ones; no kernel reads those.
        """
        found: dict[str, tuple[str, ...]] = {"lif2": ("head",)}
        for name, module in self.named_modules():
            if isinstance(module, PreActBlock):
                found[f"{name}.lif1"] = (f"{name}.conv1", f"{name}.shortcut")
                found[f"{name}.lif2"] = (f"{name}.conv2",)
        return found

    def finish(self) -> None:
        """Weights of convolutions from N(0, 2 / (k k C_out)); all else as PyTorch starts it."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d) and module is not self.head.conv:
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _readout_of(neuron: nn.Module) -> nn.Module:
    make = getattr(neuron, "readout", None)
    if make is None:
        what = f"needs neurons whose trains have a value; {type(neuron).__name__} has none"
        raise UserError("bad network", [Problem('readout = "weighted"', what, "sum or mean")])
    return make()
