"""What a module may do at certain times of its life, besides forward: three optional methods.

    evolve(progress)    before every epoch: what changes with n / N, as the width of a surrogate
    constrain()         after every step of the optimizer: back into the range of a parameter
    fold()              for inference: what training needed and inference does not, exactly removed

The engine calls them on every module of a network that has them.
"""

from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


@runtime_checkable
class Evolving(Protocol):
    """A module that changes from epoch to epoch."""

    def evolve(self, progress: float) -> None:
        """Become what it is at progress n / N in [0, 1]."""
        ...


@runtime_checkable
class Constrained(Protocol):
    """A module whose parameters have a range."""

    def constrain(self) -> None:
        """Bring the parameters back into it, in place."""
        ...


@runtime_checkable
class Foldable(Protocol):
    """A module that is simpler in inference than in training."""

    def fold(self) -> None:
        """Become the simpler one, in place, with the same outputs in evaluation mode."""
        ...


def evolve(net: nn.Module, progress: float) -> None:
    """Tell all modules of a network where training stands: n / N."""
    for module in net.modules():
        if isinstance(module, Evolving):
            module.evolve(progress)


def constrain(net: nn.Module) -> None:
    """Bring all parameters of a network back into their ranges."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Constrained):
                module.constrain()


def fold(net: Net) -> Net:
    """Bring a network into the form of its inference, in place; returns it, in evaluation mode.

    Norms become part of the convolutions before them; a module further out folds before those
    inside it. The outputs are those of `net.eval()`, up to rounding.
    """
    net.eval()
    with torch.no_grad():
        _fold(net, set())
    return net


def _fold(module: nn.Module, done: set[nn.Module]) -> None:
    done.add(module)
    if isinstance(module, Foldable):
        module.fold()
    for child in module.children():  # those that are left
        if child not in done:
            _fold(child, done)
