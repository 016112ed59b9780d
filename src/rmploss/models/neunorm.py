"""NeuNorm (Wu et al., AAAI 2019): one auxiliary neuron at each position, shared by all channels.

    x(t)   = k x(t-1) + v/F sum_f o_f(t),    x(0) = 0
    o~_f(t) = o_f(t) - U_f x(t),    U_f learnt, one number per position

It stands between the neurons o and the next convolution; its outputs are real numbers, not 0 or 1.
"""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError

Constraint = Literal["k+vF=1", "k+v=1"]


class NeuNorm(nn.Module):
    """Lateral inhibition of spikes `[T, B, F, H, W]` by their mean over channels and time.

    channels, size: F, and the side H = W of the map; U is `[F, H, W]`. decay: k in [0, 1].
    constraint: the paper's k + v F = 1 says v/F = (1 - k) / F^2, by which x settles at 1/F where
    all channels fire; with k + v = 1, v/F = (1 - k) / F, it settles at 1. Both are dimensionless.
    U starts uniform in +-1/size.
    """

    def __init__(
        self, channels: int, size: int, *, decay: float = 0.9, constraint: Constraint = "k+vF=1"
    ) -> None:
        super().__init__()
        problems = []
        if not 0 <= decay <= 1:
            problems.append(Problem(f"decay = {decay!r}", "must lie in [0, 1]", "the paper: 0.9"))
        if constraint not in ("k+vF=1", "k+v=1"):
            problems.append(Problem(f"constraint = {constraint!r}", 'is "k+vF=1" or "k+v=1"'))
        if problems:
            raise UserError("bad NeuNorm", problems)
        self.decay = decay
        self.constraint = constraint
        self.weight = nn.Parameter(torch.empty(channels, size, size))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))

    @property
    def gain(self) -> float:
        """v: what the mean over the channels is multiplied by."""
        v = 1 - self.decay
        return v / self.weight.shape[0] if self.constraint == "k+vF=1" else v

    def forward(self, spikes: Tensor) -> Tensor:
        """What the next layer sees, `[T, B, F, H, W]`."""
        drive = self.gain * spikes.mean(2, keepdim=True)
        x = torch.zeros_like(drive[0])
        inhibition = []
        for drive_t in drive.unbind(0):
            x = self.decay * x + drive_t
            inhibition.append(x)
        return spikes - self.weight * torch.stack(inhibition)

    def extra_repr(self) -> str:
        """Shape and constants."""
        shape = list(self.weight.shape)
        return f"{shape}, decay={self.decay}, constraint={self.constraint!r}"
