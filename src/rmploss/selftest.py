"""A self-test for bug reports: gradient against finite differences, backend against reference.

The gradient test replaces the spike by the surrogate's primitive, so that LIF and RMP-Loss become
one smooth function whose derivative backward must return. tests/ops holds the full tests.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from rmploss import ops
from rmploss.ops.lif.moments import ERROR, MomentSpec
from rmploss.ops.lif.reference import lif
from rmploss.randomness import generator
from rmploss.surrogate import ClippedTanh, Sigmoid

STEP = 1e-5
BOUND = 1e-7
"""The error of central differences is about step^2 |f'''| / 6 + eps |f| / step: 1e-9 here."""


@dataclass(frozen=True, kw_only=True)
class _Smooth(Sigmoid):
    """A firing function whose forward is its primitive."""

    def __call__(self, v: Tensor) -> Tensor:
        return self.primitive(v)


@dataclass(frozen=True)
class Check:
    """One comparison.

    what: the operation.
    deviation: the largest one, relative to the largest value.
    bound: the largest allowed deviation.
    """

    what: str
    deviation: float
    bound: float

    @property
    def ok(self) -> bool:
        """True if the deviation is within its bound; NaN is not."""
        return self.deviation <= self.bound


def agreement(device: torch.device) -> list[Check]:
    """Compare the backend that `auto` picks on a device with the reference, forward and backward.

    tdBN + LIF + RMP-Loss in float64: the bound is 1e4 roundings; the longest sum has some thousand
    terms. The convolution of spikes in float32 against float64: sums of n = 576 terms, each n
    roundings of the sum of their magnitudes, and 100 times that for Winograd's transforms. Returns
    an empty list where `auto` is the reference.
    """
    if ops.pick("auto", device) == "reference":
        return []
    return [_neurons(device), _convolution(device)]


def _neurons(device: torch.device) -> Check:
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
    return Check("neurons", _deviation(*results), 1e4 * torch.finfo(torch.float64).eps)


def _convolution(device: torch.device) -> Check:
    draw = generator(0, "agreement", "convolution")
    x = (torch.rand(4, 64, 8, 8, generator=draw) < 0.2).to(device)
    w, g = (torch.randn(*s, generator=draw).to(device) for s in ((64, 64, 3, 3), (4, 64, 8, 8)))
    results = []
    for backend, dtype in (("auto", torch.float32), ("reference", torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (x, w)]
        y = ops.spike_conv2d(*leaves, padding=1, backend=backend)
        results.append((y.detach().double(), *torch.autograd.grad(y, leaves, g.to(dtype))))
    return Check("convolution", _deviation(*results), 100 * 576 * torch.finfo(torch.float32).eps)


def _deviation(fast: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> float:
    pairs = zip(fast, exact, strict=True)
    return max(float((a.double() - e.double()).abs().max() / e.abs().max()) for a, e in pairs)


def selftest() -> tuple[float, float]:
    """The largest deviation of the gradient from central differences, and its bound."""
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
