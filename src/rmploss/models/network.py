"""The frame all networks share: outputs at every time step, and a read-out over time (Eq. 4)."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, Self, TypedDict, Unpack

import torch
from torch import Tensor, nn

from rmploss.entry import Untraceable, entry
from rmploss.errors import Problem, SmallMapError, UserError
from rmploss.models.amplitudes import fold_amplitudes
from rmploss.models.flow import through
from rmploss.models.layers import OverTime, initialize
from rmploss.neurons import Accumulator
from rmploss.ops import check_current, dense_of
from rmploss.sizes import step_problems

Readout = Literal["sum", "mean"]
"""How outputs are read out over time: see `Accumulator`."""


MakeHead = Callable[[int], nn.Module]
"""Makes the last layer of a `PooledNetwork`, for that many classes."""


class DataOptions(TypedDict, total=False):
    """Options of `SpikingNetwork` that follow from the data; passed on by its subclasses."""

    in_channels: int
    num_classes: int


class TimeOptions(TypedDict, total=False):
    """Options of `SpikingNetwork` about time steps."""

    T: int
    readout: Readout


class NetworkOptions(DataOptions, TimeOptions, total=False):
    """All options that every network has."""


class SpikingNetwork(Untraceable, nn.Module, ABC):
    """A classifier of static images `[B, C, H, W]` or sequences `[T, B, C, H, W]`.

    A static image is shown for `T` time steps; a sequence brings its own. Returns logits
    `[B, num_classes]`: the outputs of the steps, read out over time.

    figure_layer: the spiking layer that Figures 2 and 3 show, "the first layer of the second
    block"; gives: what `over_time` returns to the loss: "outputs" `[T, B, num_classes]`
    or a record of its own. image_size: the side H = W that the network is made for; None: any.
    """

    figure_layer: ClassVar[str]
    gives: ClassVar[str] = "outputs"

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 10,
        T: int = 4,
        readout: Readout = "sum",
        image_size: int | None = None,
    ) -> None:
        super().__init__()
        if T < 1 or num_classes < 1 or in_channels < 1:
            raise UserError(
                f"T={T}, num_classes={num_classes}, in_channels={in_channels}: all >= 1"
            )
        problems = step_problems(T)
        if problems:
            raise UserError("bad network", problems)
        self.in_channels = in_channels
        self.num_classes = num_classes
        self.T = T
        self.image_size = image_size
        self.readout: Callable[[Tensor], Tensor] = Accumulator(reduction=readout)

    @abstractmethod
    def outputs(self, x: Tensor) -> Tensor:
        """The outputs of every time step, `[T, B, num_classes]`."""

    @entry
    def forward(self, x: Tensor, *, over_time: bool = False) -> Tensor:
        """Logits `[B, num_classes]`; over_time: what they are read out from, for a loss."""
        check_current(x)
        if not torch.compiler.is_compiling():
            self._check_type(x)
        if x.ndim not in (4, 5) or x.shape[-3] != self.in_channels:
            raise UserError(
                f"x has shape {list(x.shape)}; this network takes static images "
                f"[B, {self.in_channels}, H, W] or sequences [T, B, {self.in_channels}, H, W]"
            )
        side = self.image_size
        if side is not None and x.shape[-2:] != (side, side):
            raise UserError(
                f"x has images of {x.shape[-2]} x {x.shape[-1]}; this network was made with "
                f"image_size={side}"
            )
        if not x.numel():
            raise UserError(f"x has shape {list(x.shape)}: there is no image in it")
        try:
            outputs = self.outputs(x)
        except SmallMapError as error:
            height, width = x.shape[-2:]
            problem = Problem(f"x has images of {height} x {width}", error.title, "larger images")
            raise SmallMapError("too small for this network", [problem]) from None
        return outputs if over_time else self.readout(outputs)

    def _check_type(self, x: Tensor) -> None:
        """Raise `UserError` for an x of another type than the weights; autocast casts both."""
        known = next(self.parameters(), x).dtype
        if x.dtype == known or torch.is_autocast_enabled(x.device.type):
            return
        problem = Problem(f"x is {x.dtype}", f"the network {known}", f"net(x.to({known}))")
        raise UserError("one type is needed", [problem])

    def heights_fold_into(self) -> dict[str, tuple[str, ...]]:
        """The names of neurons, and of the modules into whose kernels the height of spikes folds.

        The heights of neurons that are left out stay.
        """
        return {}

    def fold(self) -> None:
        """Put the heights of the spikes into the kernels that read them (exact)."""
        fold_amplitudes(self, self.heights_fold_into())

    frozen: tuple[str, ...] = ()
    """The modules that stay as they are in training, running statistics included; see `freeze`."""

    def freeze(self, names: Iterable[str]) -> None:
        """Leave modules as they are from now on: parameters, running statistics, no dropout.

        names: of modules of the network.
        """
        self.frozen = tuple(names)
        for name in self.frozen:
            self.get_submodule(name).requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """As of every module; the frozen ones stay in evaluation mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def finish(self) -> None:
        """Initialize the weights; called at the end of a constructor."""
        initialize(self)


class PooledNetwork(SpikingNetwork):
    """Spiking layers, global average pooling, and a linear layer (or `head`) at every step."""

    def __init__(
        self, *, features: int, head: MakeHead | None = None, **options: Unpack[NetworkOptions]
    ) -> None:
        super().__init__(**options)
        self.pool = OverTime(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        linear = head or (lambda num_classes: OverTime(nn.Linear(features, num_classes)))
        self.head = linear(self.num_classes)

    @abstractmethod
    def spikes(self, x: Tensor) -> Any:
        """The spikes `[T, B, C, H, W]` of the last spiking layer: `Spikes`, or a tensor."""

    def outputs(self, x: Tensor) -> Tensor:
        """The linear layer on the pooled spikes."""
        return self.head(dense_of(through(self.pool, self.spikes(x))))
