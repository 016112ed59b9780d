"""Inference with binary spikes: their heights go into the kernels that read them, exactly.

Real Spike learns the heights, DSR has one per layer, its threshold.

    K * (a o) = (a K) * o        o: binary spikes; a: their heights, `[C]` or `[1]`;
                                 a K: kernel K `[C', C, k, k]`, times a along C

Average pooling in between commutes with a. A shortcut without a kernel becomes a scale per channel.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from rmploss.models.layers import ConvNorm, OverTime
from rmploss.neurons.layer import HasHeight


class Scale(nn.Module):
    """A shortcut that multiplies `[T, B, C, H, W]` by one number per channel (or by one)."""

    height: Tensor

    def __init__(self, height: Tensor) -> None:
        super().__init__()
        self.register_buffer("height", height.clone())

    def forward(self, x: Tensor) -> Tensor:
        """x times the heights."""
        return x * self.height.view(-1, 1, 1)


def fold_amplitudes(net: nn.Module, targets: Mapping[str, tuple[str, ...]]) -> None:
    """Fold the heights of spikes into the kernels behind them, in place; the outputs stay.

    targets: names of neurons, and of all modules whose kernels read their spikes. Spikes of other
    neurons keep their height.
    """
    for name, reading in targets.items():
        neuron = net.get_submodule(name)
        height = neuron.release() if isinstance(neuron, HasHeight) else None
        if height is not None:
            for reader in reading:
                _absorb(net, reader, height)


def _absorb(net: nn.Module, name: str, height: Tensor) -> None:
    reader = net.get_submodule(name)
    if isinstance(reader, nn.Identity):
        net.set_submodule(name, Scale(height))
        return
    if isinstance(reader, nn.Sequential):  # an average pooling, and the projection behind it
        reader = reader[-1]
    layer = reader.conv if isinstance(reader, ConvNorm) else reader
    layer = layer.layer if isinstance(layer, OverTime) else layer
    assert isinstance(layer, nn.Conv2d | nn.Linear)
    with torch.no_grad():
        layer.weight.mul_(height.view(-1, *[1] * (layer.weight.ndim - 2)))
