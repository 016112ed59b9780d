"""Loss scaling for fp16: the rule of `torch.amp.GradScaler`, in tensors that a CUDA graph can hold.

    L' = s L,   g = g' / s;   an overflow: s <- s / 2 and no update;   2000 steps without: s <- 2 s

The scaler probes for the largest scale without overflow, and the steps that do overflow are left
out. At a scale of 1 an overflow has another cause.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

FIRST = 2.0**16
"""The first scale, dimensionless."""
INTERVAL = 2000
"""Steps without an overflow after which the scale doubles."""


class LossScale:
    """The scale of a loss and the number of steps since it last changed.

    scale: float32 `[]`, a power of two.
    steps: int32 `[]`.
    """

    def __init__(self, device: torch.device) -> None:
        self.scale = torch.full((), FIRST, device=device)
        self.steps = torch.zeros((), dtype=torch.int32, device=device)

    def probing(self) -> Tensor:
        """True (a bool, `[]`) while an overflow is no error."""
        return self.scale > 1

    def unscale(self, gradients: Sequence[Tensor]) -> None:
        """Divide gradients by the scale, in place: exact, except for numbers that underflow."""
        torch._foreach_mul_(list(gradients), self.scale.reciprocal())  # pyright: ignore[reportPrivateImportUsage]

    def update(self, overflow: Tensor) -> None:
        """The rule above; overflow: a bool `[]`."""
        grows = ~overflow & (self.steps == INTERVAL - 1)
        grown = torch.where(grows, self.scale * 2, self.scale)
        grown = torch.where(grown.isfinite(), grown, self.scale)
        self.scale.copy_(torch.where(overflow, self.scale / 2, grown))
        self.steps.copy_(torch.where(overflow | grows, 0, self.steps + 1))

    def state_dict(self) -> dict[str, float]:
        """The state, with the keys of `torch.amp.GradScaler`."""
        return {
            "scale": self.scale.item(),
            "growth_factor": 2.0,
            "backoff_factor": 0.5,
            "growth_interval": INTERVAL,
            "_growth_tracker": int(self.steps.item()),
        }

    def load_state_dict(self, state: Mapping[str, float]) -> None:
        """Restore `state_dict`, in place."""
        self.scale.fill_(state["scale"])
        self.steps.fill_(state["_growth_tracker"])
