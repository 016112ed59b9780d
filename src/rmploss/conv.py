"""The convolution of spikes: a `torch.nn.Conv2d` that keeps its input as bits."""

from typing import Any

from torch import Tensor, nn

from rmploss import ops
from rmploss.errors import UserError


class ReadsSpikes:
    """What is known of the input of a module: whether all of it is 0 and 1; None: nobody knows.

    binary: said by whoever made the module, and then it holds; may be set at any time. fed: said by
    a network of `models`, from what stands before the module (promises.py there).
    """

    binary: bool | None = None
    fed: bool | None = None

    @property
    def known(self) -> bool | None:
        """What is promised to the operation (`ops.spike_conv2d`)."""
        return self.fed if self.binary is None else self.binary

    def know_as(self, other: "ReadsSpikes") -> None:
        """Stand in the place of another module, with the same input."""
        self.binary, self.fed = other.binary, other.fed


class SpikeConv2d(nn.Conv2d, ReadsSpikes):
    """`torch.nn.Conv2d` of `[N, C, H, W]`, exact for any input and made for spikes (0 and 1).

    Spikes are kept for backward as bits, and on the CPU a sparse input is convolved event by event
    (`ops.spike_conv2d`). Groups, dilation, unequal strides and padding modes run as in the parent.

    binary: whether every input is spikes, None: nobody knows. True is a promise, by which nothing
    waits for a GPU to see it; where bits are kept, an input that breaks it is told.
    """

    def __init__(self, *shape: Any, binary: bool | None = None, **options: Any) -> None:
        """shape, options: as in the parent."""
        super().__init__(*shape, **options)
        self.binary = binary

    def forward(self, input: Tensor) -> Tensor:
        """The convolution `[N, C', H', W']`."""
        if input.ndim == 5:
            shape = list(input.shape)
            raise UserError(
                f"x has shape {shape}; a convolution takes [N, C, H, W]: "
                "conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])"
            )
        (s, s_w), p, dilation = self.stride, self.padding, self.dilation
        square = s == s_w and isinstance(p, tuple) and p[0] == p[1] and dilation == (1, 1)
        if not square or self.groups != 1 or self.padding_mode != "zeros":
            return super().forward(input)
        options: Any = {"stride": s, "padding": int(p[0]), "binary": self.known}
        return ops.spike_conv2d(input, self.weight, self.bias, **options)
