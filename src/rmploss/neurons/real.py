"""Real Spike (Guo et al., ECCV 2022): spikes have a learnt height in training, none in inference.

    o~(t) = a o(t),    o(t) the binary spike of the neuron, a one per channel or one per layer

Threshold and reset see o. For inference K * (a o) = (a K) * o: the height goes into the kernel of
the convolution that reads the spikes (`models.amplitudes`).
"""

from typing import Literal, Unpack

import torch
from torch import Tensor, nn

from rmploss.arguments import checked, collect
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.lif import LIF, LIFOptions


class RealSpike(LIF):
    """`LIF` whose spikes are multiplied by `amplitude`, `[C]` or `[1]`, learnt from 1.

    channels: C, for one amplitude per channel.
    per: "channel" (the authors' code) or "layer".
    others: of `LIF`.

    Raises `UserError` for values out of range, and without the channels that `per` needs.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        per: Literal["channel", "layer"] = "channel",
        **lif: Unpack[LIFOptions],
    ) -> None:
        if per == "channel" and channels is None:
            what, fix = "needs the number of channels", 'RealSpike(64), or per="layer"'
            problems = [Problem('per = "channel"', what, fix)]
            collect(problems, lambda: LIF(channels, **lif))
            raise UserError("bad RealSpike", problems)
        super().__init__(channels, **lif)
        count = channels if per == "channel" and channels is not None else 1
        self.amplitude: nn.Parameter | None = nn.Parameter(torch.ones(count))

    def release(self) -> Tensor | None:
        """The amplitudes, taken away: from now on the spikes are binary. None: they were before."""
        height, self.amplitude = self.amplitude, None
        return None if height is None else height.detach()

    @property
    def is_binary(self) -> bool:
        """True once the heights were released."""
        own = type(self).emit is RealSpike.emit and "emit" not in self.__dict__
        return own and self.amplitude is None

    def emit(self, spikes: Tensor) -> Tensor:
        """The spikes times their height."""
        if self.amplitude is None:
            return spikes
        if self.amplitude.device != spikes.device:
            what, fix = f"the amplitude on {self.amplitude.device}", "net.to(x.device)"
            problem = Problem(f"x is on {spikes.device}", what, fix)
            raise UserError("one device is needed", [problem])
        height = self.amplitude.view(-1, *[1] * (spikes.ndim - 3))
        return spikes * height.to(spikes.dtype)
