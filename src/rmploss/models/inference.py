"""Which layers of a network run in one pass for inference (`ops.conv_lif`), and of what they are.

Convolution, norm and LIF neurons, in evaluation mode and without gradient, where no hook, no class
of its own and no open `membrane_stats` sees what happens between them. Others run one by one, with
the same spikes.
"""

from typing import Any

from torch import Tensor, nn

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.models.flow import PassesSpikes, calls
from rmploss.neurons import IF, LIF
from rmploss.norm import TDBatchNorm2d
from rmploss.ops import Affine, Convolution, NeuronOptions, Spikes
from rmploss.stats import open_stats


def inferred(
    layer: Any,
    kept: ops.Kept,
    x: Spikes,
    neuron: nn.Module,
    residual: Tensor | Spikes | None,
) -> Spikes | None:
    """The spikes `[T, B, C', H', W']` of `neuron` behind a `ConvNorm`; None: not in one pass.

    layer: with conv and norm.
    kept: what is kept of it.
    x: `[T, B, C, H, W]`.
    residual: `[T, B, C', H', W']`.
    """
    if not calls(layer, PassesSpikes) or open_stats() is not None:
        return None
    conv = _convolution(layer.conv)
    options = None if conv is None else _neuron(neuron, conv.weight.shape[0])
    if options is None or conv is None:
        return None
    norm = layer.norm
    if norm is None:
        return ops.conv_lif(kept, x, conv, None, options, residual)
    if type(norm) is not TDBatchNorm2d or norm.training or not calls(norm, TDBatchNorm2d):
        return None
    if norm.channels != conv.weight.shape[0]:
        return None
    made_from = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    if not all(isinstance(x, Tensor) for x in made_from):
        return None
    affine = Affine(made_from, (norm.eps, norm.scale), norm.affine)
    return ops.conv_lif(kept, x, conv, affine, options, residual)


def _neuron(neuron: nn.Module, channels: int) -> NeuronOptions | None:
    """The equations of plain LIF neurons of that many channels; None for others."""
    if type(neuron) not in (LIF, IF) or not calls(neuron, LIF):
        return None
    assert isinstance(neuron, LIF)
    if neuron.carry_state or not neuron.is_binary or neuron.channels not in (None, channels):
        return None
    return neuron.options()


def _convolution(conv: nn.Module) -> Convolution | None:
    """A convolution of square strides and paddings, without groups; None for others."""
    if type(conv) is not SpikeConv2d or not calls(conv, SpikeConv2d):
        return None
    (stride, across), padding = conv.stride, conv.padding
    if stride != across or isinstance(padding, str) or padding[0] != padding[1]:
        return None
    if conv.dilation != (1, 1) or conv.groups != 1 or conv.padding_mode != "zeros":
        return None
    return Convolution(conv.weight, conv.bias, stride, int(padding[0]))
