"""Dropout of spikes over time: a new mask at every step (STBP), or one for all steps (PLIF).

    y(t) = m(t) x(t) / (1 - p),    m(t) = 0 with probability p, otherwise 1;    one mask: m(t) = m

The masks are drawn from PyTorch's default generator of the device. The engine seeds it anew for
each step of training, so that a resumed run and a replayed CUDA graph draw the same masks.
"""

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.models.flow import PassesSpikes
from rmploss.ops import Spikes, dense_of


class Dropout(PassesSpikes):
    """Inverted dropout of `[T, B, ...]` in training; in evaluation it returns x.

    p: the share that is dropped, in [0, 1). one_mask: all steps of a forward share a mask. One
    module may stand in several places: each call draws masks of its own.
    """

    @checked()
    def __init__(self, p: float = 0.5, *, one_mask: bool = False) -> None:
        super().__init__()
        if not 0 <= p < 1:
            problem = Problem(f"dropout = {p!r}", "must lie in [0, 1)", "STBP and PLIF: 0.5")
            raise UserError("bad dropout", [problem])
        self.p = p
        self.one_mask = one_mask

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """x `[T, B, ...]` with a share p of it set to 0, and the rest divided by 1 - p."""
        if not self.training or self.p == 0:
            return x
        x = dense_of(x)
        steps = 1 if self.one_mask else x.shape[0]
        kept = torch.empty((steps, *x.shape[1:]), dtype=torch.bool, device=x.device)
        kept.bernoulli_(1 - self.p)
        return x * kept * (1 / (1 - self.p))

    def extra_repr(self) -> str:
        """The share, and whose mask it is."""
        return f"p={self.p}, one_mask={self.one_mask}"
