"""The frame all networks share: encode, spike, pool over space, read out over time (Eq. 4)."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from torch import Tensor, nn

from rmploss.errors import UserError
from rmploss.models.layers import OverTime, initialize
from rmploss.neurons import Accumulator


class SpikingNetwork(nn.Module, ABC):
    """A classifier of static images `[B, C, H, W]` or sequences `[T, B, C, H, W]`.

    A static image is shown for `T` time steps; a sequence brings its own. Returns logits
    `[B, num_classes]`: the membrane of the output neurons after the last step.

    figure_layer: the spiking layer that Figures 2 and 3 show, "the first layer of the second
    block".
    """

    figure_layer: ClassVar[str]

    def __init__(
        self,
        *,
        in_channels: int,
        num_classes: int,
        T: int,
        features: int,
        readout: Literal["sum", "mean"],
        head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        if T < 1 or num_classes < 1 or in_channels < 1:
            raise UserError(
                f"T={T}, num_classes={num_classes}, in_channels={in_channels}: all >= 1"
            )
        self.in_channels = in_channels
        self.T = T
        self.pool = OverTime(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.head = head or OverTime(nn.Linear(features, num_classes))
        self.readout = Accumulator(reduction=readout)

    @abstractmethod
    def spikes(self, x: Tensor) -> Tensor:
        """The spikes `[T, B, C, H, W]` of the last spiking layer."""

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, num_classes]`."""
        if x.ndim not in (4, 5) or x.shape[-3] != self.in_channels:
            raise UserError(
                f"x has shape {list(x.shape)}; this network takes static images "
                f"[B, {self.in_channels}, H, W] or sequences [T, B, {self.in_channels}, H, W]"
            )
        return self.readout(self.head(self.pool(self.spikes(x))))

    def finish(self) -> None:
        """Initialize the weights; called at the end of a constructor."""
        initialize(self)
