"""The convolution of spikes: a `torch.nn.Conv2d` that keeps its input as bits."""

from torch import Tensor, nn
from torch.nn import functional as F

from rmploss import ops
from rmploss.entry import Untraceable, entry
from rmploss.errors import UserError
from rmploss.ops import Spikes


class SpikeConv2d(Untraceable, nn.Conv2d):
    """`torch.nn.Conv2d` of `[N, C, H, W]`, exact for any input and made for spikes (0 and 1).

    Spikes are kept for backward as bits, and on the CPU a sparse input is convolved event by event
    (`ops.spike_conv2d`). Groups, dilation, unequal strides and padding modes run as in the parent.
    """

    @entry
    def forward(self, input: Tensor | Spikes) -> Tensor:
        """The convolution `[N, C', H', W']`.

        input: `[N, C, H, W]`, or `Spikes` `[T, B, C, H, W]`, of which the result has the leading
            dimensions.
        """
        return ops.as_handed_out(self.convolve(input))

    def convolve(self, input: Tensor | Spikes, look: bool = True) -> Tensor:
        """`forward` in the memory layout of the kernels, for the layer of a network that reads it.

        look: whether a tensor is looked at for being all 0 and 1.
        """
        if isinstance(input, Tensor) and input.ndim == 5:
            shape = list(input.shape)
            raise UserError(
                f"x has shape {shape}; a convolution takes [N, C, H, W]: "
                "conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])"
            )
        (s, s_w), p, dilation = self.stride, self.padding, self.dilation
        square = s == s_w and isinstance(p, tuple) and p[0] == p[1] and dilation == (1, 1)
        if not square or self.groups != 1 or self.padding_mode != "zeros":
            if isinstance(input, Spikes):
                steps = input.shape[:2]
                return super().forward(input.dense.flatten(0, 1)).unflatten(0, steps)
            return super().forward(input)
        return ops.spike_conv2d(
            input, self.weight, self.bias, stride=s, padding=int(p[0]), look=look
        )

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        # PyTorch's, whose shapes some of oneDNN's kernels do not survive.
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = (0, 0)
        return ops.conv2d(input, weight, bias, self.stride, padding, self.dilation, self.groups)
