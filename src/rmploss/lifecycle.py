"""Optional hooks of a module that the engine calls: evolve, constrain, fold.

evolve(progress)    before every epoch and after a load: change with n / N, as a surrogate's width
constrain()         after every optimizer step: bring parameters back into their ranges
fold()              before inference: remove exactly what only training needs
settle()            before inference with weights that stay as they are
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, TypeVar, runtime_checkable

import torch
from torch import nn

Net = TypeVar("Net", bound=nn.Module)


@runtime_checkable
class Evolving(Protocol):
    """A module that changes with the epoch."""

    def evolve(self, progress: float) -> None:
        """Change to the state of progress n / N in [0, 1], dimensionless."""
        ...


@runtime_checkable
class Constrained(Protocol):
    """A module whose parameters have ranges."""

    def constrain(self) -> None:
        """Bring the parameters back into their ranges, in place."""
        ...


@runtime_checkable
class Foldable(Protocol):
    """A module that has a simpler form for inference."""

    def fold(self) -> None:
        """Take the simpler form in place, with the same outputs in evaluation mode."""
        ...


@runtime_checkable
class Settling(Protocol):
    """A module that keeps what it made of its weights for inference."""

    def settle(self) -> None:
        """Take the weights as unchanged where PyTorch counts no change, until `train()`.

        A change that PyTorch does not count is one through `.data` or NumPy.
        """
        ...


def evolve(net: nn.Module, progress: float) -> None:
    """Call `evolve` of all modules that have it; progress: n / N in [0, 1]."""
    for module in net.modules():
        if isinstance(module, Evolving):
            module.evolve(progress)


def constrain(net: nn.Module) -> None:
    """Call `constrain` of all modules that have it, without gradient."""
    with torch.no_grad():
        for module in net.modules():
            if isinstance(module, Constrained):
                module.constrain()


def fold(net: Net) -> Net:
    """Call `fold` of all modules that have it, parents first; returns `net` in evaluation mode.

    In place. Norms become part of the convolutions before them. The outputs are those of
    `net.eval()`, up to rounding.
    """
    net.eval()
    with torch.no_grad():
        _fold(net, set())
    return net


def settle(net: Net) -> Net:
    """Call `settle` of all modules that have it; returns `net`.

    Without it, layers read all weights at every call to see if they have changed, which takes a
    quarter of an image's time. After it a change through `.data` or NumPy, which PyTorch does not
    count, may go unseen; `net.train().eval()` ends that.
    """
    for module in net.modules():
        if isinstance(module, Settling):
            module.settle()
    return net


def _fold(module: nn.Module, done: set[nn.Module]) -> None:
    done.add(module)
    if isinstance(module, Foldable):
        module.fold()
    for child in module.children():  # the children after folding
        if child not in done:
            _fold(child, done)


@contextmanager
def evaluating(net: nn.Module) -> Iterator[None]:
    """Inside the block a network is in evaluation mode; afterwards every module is as before."""
    modes = [(module, module.training) for module in net.modules()]
    net.eval()
    try:
        yield
    finally:
        net.train(modes[0][1])
        for module, training in modes:
            if module.training != training:
                module.training = training
