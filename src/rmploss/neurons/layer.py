"""What all layers of spiking neurons have in common, whatever equations they follow."""

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class HasHeight(Protocol):
    """A layer whose spikes have a height in training, which inference puts into the kernels."""

    def release(self) -> Tensor | None:
        """The heights `[C]` or `[1]`, taken away; None if they were before."""
        ...


@runtime_checkable
class EmitsSpikes(Protocol):
    """A layer that knows whether all it gives on is 0 and 1; any other is taken to give more."""

    @property
    def is_binary(self) -> bool:
        """Whether it is, for every input: convolutions are then promised spikes."""
        ...


@runtime_checkable
class SpikingLayer(Protocol):
    """A layer of neurons, `[T, B, C, ...]` input current to outputs of the same shape.

    layer_name: its name in the network; v_threshold: where it fires, in the units of `membrane`
    (dimensionless); unregularized: why no regularizer of the membrane is defined for it, or None;
    place: "inner" of a residual block, "sum" where it sees the sum of two branches, or "".
    """

    layer_name: str
    v_threshold: float
    unregularized: str | None
    place: str

    def __call__(self, x: Tensor) -> Tensor:
        """What the layer gives on; it records its moments into an open `membrane_stats`."""
        ...

    def membrane(self, x: Tensor) -> Tensor:
        """The potential before the reset of every step, without gradient: to look at."""
        ...
