"""The convolution of spikes: a `torch.nn.Conv2d` that keeps its input as bits."""

from torch import Tensor, nn

from rmploss import ops


class SpikeConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of `[N, C, H, W]`, exact for any input and made for spikes (0 and 1).

    Spikes are kept for backward as bits, and on the CPU a sparse input is convolved event by event
    (`ops.spike_conv2d`). Groups, dilation, unequal strides and padding modes run as in the parent.
    """

    def forward(self, input: Tensor) -> Tensor:
        """The convolution `[N, C', H', W']`."""
        (s, s_w), p, dilation = self.stride, self.padding, self.dilation
        square = s == s_w and isinstance(p, tuple) and p[0] == p[1] and dilation == (1, 1)
        if not square or self.groups != 1 or self.padding_mode != "zeros":
            return super().forward(input)
        return ops.spike_conv2d(input, self.weight, self.bias, stride=s, padding=int(p[0]))
