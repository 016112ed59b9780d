"""A self-test small enough for every bug report: one gradient against finite differences.

The spike is replaced by the surrogate's primitive, so that LIF and RMP-Loss become one smooth
function whose derivative must be what backward says (see tests/ops for the full programme).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rmploss.ops.moments import ERROR, MomentSpec
from rmploss.ops.reference import lif
from rmploss.randomness import generator
from rmploss.surrogate import Sigmoid

STEP = 1e-5
BOUND = 1e-7
"""Central differences err by about step^2 |f'''| / 6 + eps |f| / step: some 1e-9 here."""


@dataclass(frozen=True, kw_only=True)
class _Smooth(Sigmoid):
    """A firing function that is its own primitive."""

    def __call__(self, v: Tensor) -> Tensor:
        return self.primitive(v)


def selftest() -> tuple[float, float]:
    """The largest deviation of the gradient from finite differences, and its bound."""
    x = torch.randn(3, 2, 2, 2, generator=generator(0, "selftest"), dtype=torch.float64)

    def loss(x: Tensor) -> Tensor:
        spikes, moments, _ = lif(
            x,
            torch.zeros_like(x[0]),
            decay=0.25,
            v_threshold=0.5,
            v_reset=0.0,
            detach_reset=False,
            surrogate=_Smooth(),
            moments=MomentSpec(detach_target=False),
        )
        assert moments is not None
        return spikes.square().sum() + moments[ERROR].sum()

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    deviation = 0.0
    with torch.no_grad():
        for index in range(x.numel()):
            nudge = torch.zeros_like(x).view(-1)
            nudge[index] = STEP
            nudge = nudge.view_as(x)
            difference = (loss(x + nudge) - loss(x - nudge)) / (2 * STEP)
            deviation = max(deviation, float((difference - gradient.view(-1)[index]).abs()))
    return deviation, BOUND
