"""Who reads spikes: the promise that a convolution or a shortcut gets nothing but 0 and 1.

What is promised is not looked at before it is kept for backward (`ops.spike_conv2d`). A network
promises each time it is put into training or evaluation mode, from the layers that it has then:
until that, neurons may be replaced, hooked or folded. Whoever is promised nothing stays exact for
any input, and so does every network that names no readers.
"""

from collections.abc import Mapping

from torch import nn

from rmploss.conv import SpikeConv2d
from rmploss.models.factorized import FactorizedConv2d
from rmploss.models.layers import ConvNorm, OverTime, Shortcut
from rmploss.neurons.layer import EmitsSpikes, SpikingLayer

Reader = SpikeConv2d | FactorizedConv2d | Shortcut
"""What may know whether it reads spikes, by its attribute `binary`."""


def promise(net: nn.Module, readers: Mapping[str, tuple[str, ...]]) -> None:
    """Tell all readers whether they get spikes: True, False, or None where nobody can know.

    readers: names of modules, and of those that get what they give, as it is. What the network does
    not have (any more) promises nothing.
    """
    fed: dict[Reader, bool | None] = {}
    for name, reading in readers.items():
        binary = _gives_spikes(_find(net, name))
        for path in reading:
            within = _within(_find(net, path))
            reader = within[-1] if within else None
            if isinstance(reader, Reader):
                known = None if any(module._forward_pre_hooks for module in within) else binary
                fed[reader] = known if fed.get(reader, known) is known else None
    for reader, binary in fed.items():
        reader.binary = binary


def _gives_spikes(module: nn.Module | None) -> bool | None:
    """Whether all that leaves a module is 0 and 1; None: it may be changed, or does not tell."""
    if module is None or module._forward_hooks or {"forward", "emit"} & module.__dict__.keys():
        return None
    if isinstance(module, EmitsSpikes):
        return module.is_binary
    return None if isinstance(module, SpikingLayer) else False  # a pooling, a sum, the input


def _within(module: nn.Module | None) -> list[nn.Module]:
    """A module and, last, the one in it that gets its input."""
    if isinstance(module, ConvNorm):
        return [module, module.conv]
    if isinstance(module, OverTime):
        return [module, module.layer]
    return [] if module is None else [module]


def _find(net: nn.Module, name: str) -> nn.Module | None:
    try:
        return net.get_submodule(name)
    except AttributeError:
        return None
