"""The spiking VGG16 of the paper's tables: 13 convolutions, five average poolings, one linear."""

from typing import Any, Unpack

from torch import Tensor, nn

from rmploss.models.layers import (
    AvgPool2d,
    MakeNeuron,
    MakeNorm,
    OverTime,
    conv3x3,
    in_sequence,
    scaled,
)
from rmploss.models.network import NetworkOptions, PooledNetwork
from rmploss.neurons import LIF
from rmploss.norm import TDBatchNorm2d

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
"""Channels of the convolutions between two poolings (configuration D)."""


class VGG16(PooledNetwork):
    """VGG16: 14,728,266 parameters for ten classes (convolutions have a bias before the norm).

    Average pooling follows the last neurons of each stage. width scales all channels.
    """

    figure_layer = "layers.lif2_1"

    def __init__(
        self,
        *,
        width: float = 1.0,
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[NetworkOptions],
    ) -> None:
        super().__init__(features=scaled(STAGES[-1][-1], width), **options)
        source = self.in_channels
        self.layers = nn.Sequential()
        for stage, channels in enumerate(STAGES, start=1):
            for index, count in enumerate(channels, start=1):
                target = scaled(count, width)
                self.layers.add_module(
                    f"conv{stage}_{index}", conv3x3(source, target, norm, bias=True)
                )
                self.layers.add_module(f"lif{stage}_{index}", neuron(target))
                source = target
            self.layers.add_module(f"pool{stage}", OverTime(AvgPool2d(2)))
        self.finish()

    def spikes(self, x: Tensor) -> Any:
        """The pooled spikes of the last stage."""
        return in_sequence(self.layers, x, self.T)

    def heights_fold_into(self) -> dict[str, tuple[str, ...]]:
        """The next convolution, the linear layer at the end."""
        names = [f"layers.{name}" for name, _ in self.layers.named_children()]
        neurons = [name for name in names if name.startswith("layers.lif")]
        convs = [name for name in names if name.startswith("layers.conv")]
        return {n: (reader,) for n, reader in zip(neurons, [*convs[1:], "head"], strict=True)}
