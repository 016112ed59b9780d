"""Who reads spikes: the promise that a convolution or a shortcut gets nothing but 0 and 1.

What is promised is not looked at before it is kept for backward (`ops.spike_conv2d`). A network
promises each time it is put into training or evaluation mode, from the layers that it has then:
until that, neurons may be replaced or folded. It promises too little rather than too much: nothing
while anything in it is hooked, nothing around modules of other classes than its own, nothing if a
subclass changed what flows without saying who reads. Whoever is promised nothing stays exact.
"""

from collections.abc import Mapping

from torch import nn
from torch.nn.modules import module as of_all

from rmploss.conv import ReadsSpikes, SpikeConv2d
from rmploss.models.factorized import FactorizedConv2d
from rmploss.models.layers import ConvNorm, OverTime, Shortcut
from rmploss.neurons.layer import EmitsSpikes, SpikingLayer

READERS = (SpikeConv2d, FactorizedConv2d, Shortcut)
"""Classes that hand their input to an operation as they got it; a subclass need not."""


def forget(net: nn.Module) -> None:
    """Take back what was promised to anybody in a network, below wrappers too."""
    for module in net.modules():
        if isinstance(module, ReadsSpikes):
            module.fed = None


def promise(net: nn.Module, readers: Mapping[str, tuple[str, ...]]) -> None:
    """Tell readers whether they get spikes: True or False; None, as they are, if nobody can know.

    readers: names of modules, and of those that get what they give, as it is. What the network does
    not have (any more) promises nothing.
    """
    if _is_listened_to(net):
        return
    told: dict[ReadsSpikes, set[bool | None]] = {}
    for name, reading in readers.items():
        binary = _gives_spikes(_find(net, name))
        for path in reading:
            reader = _reader(_find(net, path))
            if reader is not None:
                told.setdefault(reader, set()).add(binary)
    for reader, said in told.items():
        # With several sources, who agree or leave it open.
        reader.fed = said.pop() if len(said) == 1 else None


def says_who_reads(net: nn.Module) -> bool:
    """Whether no subclass of a user's has methods of its own, but not `direct_readers`."""
    for kind in type(net).__mro__:
        if "direct_readers" in vars(kind) or kind.__module__.startswith("rmploss.models."):
            return True
        own = (value for name, value in vars(kind).items() if not name.startswith("__"))
        if any(callable(value) or isinstance(value, property) for value in own):
            return False
    return False


def _is_listened_to(net: nn.Module) -> bool:
    """Whether a hook, or a forward of an object's own, may change what flows."""
    if of_all._global_forward_hooks or of_all._global_forward_pre_hooks:
        return True
    return any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in module.__dict__
        for module in net.modules()
    )


def _gives_spikes(module: nn.Module | None) -> bool | None:
    """Whether all that leaves a module is 0 and 1; None: it does not tell."""
    if module is None or "emit" in module.__dict__:
        return None
    if isinstance(module, EmitsSpikes):
        return module.is_binary
    return None if isinstance(module, SpikingLayer) else False  # a pooling, a sum, the input


def _reader(module: nn.Module | None) -> ReadsSpikes | None:
    """The module that gets the input of `module`, if it is of a known class."""
    if type(module) is ConvNorm:
        module = module.conv
    elif type(module) is OverTime:
        module = module.layer
    return module if type(module) in READERS else None  # pyright: ignore[reportReturnType]


def _find(net: nn.Module, name: str) -> nn.Module | None:
    try:
        return net.get_submodule(name)
    except AttributeError:
        return None
