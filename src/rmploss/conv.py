"""The convolution of spikes: a `torch.nn.Conv2d` that keeps its input as bits."""

from torch import Tensor, nn

from rmploss import ops
from rmploss.errors import UserError
from rmploss.ops import Spikes


class SpikeConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` of `[N, C, H, W]`, exact for any input and made for spikes (0 and 1).

    Spikes are kept for backward as bits, and on the CPU a sparse input is convolved event by event
    (`ops.spike_conv2d`). Groups, dilation, unequal strides and padding modes run as in the parent.
    """

    def forward(self, input: Tensor | Spikes, look: bool = True) -> Tensor:
        """The convolution `[N, C', H', W']`.

        input: `[N, C, H, W]`, or `Spikes` `[T, B, C, H, W]`, of which the result has the leading
            dimensions.
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
