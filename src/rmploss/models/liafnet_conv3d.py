"""LIAF-Net's baseline without cells: 3x3x3 convolutions over time and space (Wu et al., 2021).

    {C3D - f - AP2} x 4 of 32, 64, 128, 256 channels - 512 FC - f - 10 FC, the mean over time

C3D is a padded convolution over (T, H, W) with bias and its norm, f an activation, AP2 average
pooling of each step. Nothing spikes, and nothing is known of its details but the idea.
"""

import torch
from torch import Tensor, nn

from rmploss.models.layers import AvgPool2d, MakeNeuron, MakeNorm, OverTime, scaled
from rmploss.models.liafnet import CHANNELS, HIDDEN, pooled_side, start
from rmploss.models.network import Readout, SpikingNetwork
from rmploss.neurons import LIF
from rmploss.neurons.liaf import ACTIVATIONS, Activation
from rmploss.norm import NoNorm, TDBatchNorm2d


class Conv3dNorm(nn.Module):
    """A padded 3x3x3 convolution and its norm, `[T, B, C, H, W]` to `[T, B, C', H, W]`."""

    def __init__(self, in_channels: int, channels: int, norm: MakeNorm) -> None:
        super().__init__()
        self.conv = nn.Conv3d(in_channels, channels, 3, padding=1)
        made = norm(channels)
        self.norm: nn.Module | None = None if isinstance(made, NoNorm) else made

    def forward(self, x: Tensor) -> Tensor:
        """norm(conv(x)); every step sees its neighbours."""
        y = self.conv(x.movedim(0, 2)).movedim(2, 0)
        return y if self.norm is None else self.norm(y)

    def fold(self) -> None:
        """Make the norm part of the convolution, for evaluation (exact)."""
        if isinstance(self.norm, TDBatchNorm2d) and self.conv.bias is not None:
            gain, shift = self.norm.affine()
            with torch.no_grad():
                self.conv.weight.mul_(gain.view(-1, 1, 1, 1, 1))
                self.conv.bias.mul_(gain).add_(shift)
            self.norm = None


class LIAFNetConv3D(SpikingNetwork):
    """The network with 3x3x3 convolutions instead of cells. neuron: ignored, the network has none.

    A static image is T equal steps. image_size: side of the images, at least 16.
    """

    figure_layer = ""

    def __init__(
        self,
        *,
        in_channels: int = 2,
        num_classes: int = 10,
        T: int = 10,
        width: float = 1.0,
        image_size: int = 42,
        activation: Activation = "relu",
        readout: Readout = "mean",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
    ) -> None:
        data = {"in_channels": in_channels, "num_classes": num_classes, "image_size": image_size}
        super().__init__(**data, T=T, readout=readout)
        side, source = pooled_side(image_size), in_channels
        self.activation = activation
        for index, wide in enumerate(CHANNELS, start=1):
            channels = scaled(wide, width)
            self.add_module(f"conv{index}", Conv3dNorm(source, channels, norm))
            source = channels
        self.halve = OverTime(AvgPool2d(2))
        hidden = scaled(HIDDEN, width)
        self.fc1 = OverTime(nn.Linear(source * side**2, hidden))
        self.fc2 = OverTime(nn.Linear(hidden, num_classes))
        self.finish()

    def outputs(self, x: Tensor) -> Tensor:
        """The last linear layer at every step, `[T, B, num_classes]`."""
        if x.ndim == 4:
            x = x.expand(self.T, *x.shape)
        f = ACTIVATIONS[self.activation]
        for index in range(1, len(CHANNELS) + 1):
            x = self.halve(f(self.get_submodule(f"conv{index}")(x)))
        return self.fc2(f(self.fc1(x.flatten(2))))

    def finish(self) -> None:
        """Weights from N(0, 2 / inputs), biases 1/2, as the network with cells."""
        start(self)
