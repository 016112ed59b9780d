"""How spikes flow inside a network: as `Spikes` between modules that read or keep them.

A network hands `Spikes` from binary neurons to the convolutions and shortcuts that read their bits.
To hooks, to modules of other classes and to a caller of a single module, spikes are tensors.
`through` decides which: a module with a hook, a `forward` of its own or of another class is called
like any `torch.nn.Module`, with the dense tensor.
"""

from abc import abstractmethod
from typing import Any, ClassVar

from torch import Tensor, nn
from torch.nn.modules import module as of_all

from rmploss.entry import Untraceable, entry
from rmploss.ops import Spikes, dense_of


class PassesSpikes(Untraceable, nn.Module):
    """A module of a network that takes and returns spikes, `[T, B, C, H, W]`.

    Called by itself it takes and returns tensors; a network calls `forward_spikes` (`through`).

    reads_bits: whether convolutions or shortcuts of the module read x: then a tensor from outside
        is looked at for being all 0 and 1, where looking is free.
    """

    reads_bits: ClassVar[bool] = False

    @entry
    def forward(self, x: Tensor, **options: Any) -> Tensor:
        """What `forward_spikes` returns, as a tensor."""
        given = Spikes.found_in(x) if self.reads_bits else x
        return dense_of(self.forward_spikes(given, **options))

    @abstractmethod
    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """The output for x: `Spikes` where all of it is 0 or 1 and its bits are known."""


def through(module: nn.Module, x: Tensor | Spikes, **options: Any) -> Any:
    """The output of `module(x, **options)` inside a network: `Spikes`, or a tensor."""
    if type(module) is nn.Sequential and calls(module, nn.Sequential) and not options:
        for child in module:
            x = through(child, x)
        return x
    if isinstance(module, PassesSpikes) and calls(module, PassesSpikes):
        return module.forward_spikes(x, **options)
    # The tensor of another class, or of a hook, may or may not be spikes: it is looked at.
    return Spikes.found_in(module(dense_of(x), **options))


def calls(module: nn.Module, kind: type[nn.Module]) -> bool:
    """True if calling `module` runs the `forward` of `kind` and nothing else."""
    own = type(module).forward is kind.forward and "forward" not in module.__dict__
    called = type(module).__call__ is nn.Module.__call__ and module._compiled_call_impl is None
    return own and called and not is_watched(module)


def is_watched(module: nn.Module) -> bool:
    """True if a hook, of the module or of all modules, sees its calls."""
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or of_all._global_forward_hooks
        or of_all._global_forward_pre_hooks
        or of_all._global_backward_hooks
        or of_all._global_backward_pre_hooks
    )
