"""A self-test small enough for every bug report: is the gradient right, do the backends agree?

The spike is replaced by the surrogate's primitive, so that LIF and RMP-Loss become one smooth
function whose derivative must be what backward says (see tests/ops for the full programme).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rmploss import ops
from rmploss.ops.moments import ERROR, MomentSpec
from rmploss.ops.reference import lif
from rmploss.randomness import generator
from rmploss.surrogate import ClippedTanh, Sigmoid

STEP = 1e-5
BOUND = 1e-7
"""Central differences err by about step^2 |f'''| / 6 + eps |f| / step: some 1e-9 here."""


@dataclass(frozen=True, kw_only=True)
class _Smooth(Sigmoid):
    """A firing function that is its own primitive."""

    def __call__(self, v: Tensor) -> Tensor:
        return self.primitive(v)


def agreement(device: torch.device) -> tuple[float, float]:
    """The largest deviation of what `auto` runs on a device from the reference, and its bound.

    tdBN, LIF and RMP-Loss, forward and backward, in float64; relative to the largest value. The
    bound is 1e4 roundings: the longest sum has some thousand terms.
    """
    y = torch.randn(4, 2, 5, 6, 6, generator=generator(0, "agreement"), dtype=torch.float64)
    y = y.to(device)
    one = torch.ones(5, dtype=torch.float64, device=device)
    results = []
    for backend in ("auto", "reference"):
        leaf = y.clone().requires_grad_()
        spikes, moments, *_ = ops.norm_lif(
            leaf, one, one / 4, eps=1e-5, decay=0.25, v_threshold=0.5, v_reset=0.0,
            detach_reset=False, surrogate=ClippedTanh(), moments=MomentSpec(), backend=backend,
        )  # fmt: skip
        assert moments is not None
        loss = (spikes * y).sum() + moments[ERROR].sum()
        results.append((spikes.detach(), moments.detach(), *torch.autograd.grad(loss, leaf)))
    worst = max(
        float((fast - exact).abs().max() / exact.abs().max())
        for fast, exact in zip(*results, strict=True)
    )
    return worst, 1e4 * torch.finfo(torch.float64).eps


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
