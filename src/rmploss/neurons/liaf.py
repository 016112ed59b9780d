"""LIAF (Wu et al., TNNLS 2021): leaky integrate, analog fire.

    u(t) = decay u(t-1) (1 - o(t-1)) + x(t)          from rest
    o(t) = 1 if u(t) >= v_threshold else 0           resets, without gradient, and stays inside
    y(t) = f(u(t))  or, threshold-related,  f(u(t) - v_threshold)

    dL/du(t) = f'(u(t)) dL/dy(t) + decay (1 - o(t)) dL/du(t+1);    dL/dx(t) = dL/du(t)

f is SELU, ReLU or a leaky ReLU of slope 0.2: y is a real number, and no gradient needs a surrogate.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss import functional, ops
from rmploss.errors import Problem, UserError
from rmploss.ops.moments import membrane_moments
from rmploss.stats import open_stats

Activation = Literal["selu", "relu", "leaky_relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "selu": F.selu,
    "relu": F.relu,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
}
"""f by name."""


class LIAF(nn.Module):
    """LIAF cells: `[T, B, C, ...]` input current to analog outputs of the same shape.

    decay: in [0, 1]; with learn_decay in (0, 1), where the parameter p, one per layer, starts:
    decay = sigmoid(p). threshold_related: give f(u - v_threshold) on. All dimensionless.
    """

    unregularized: ClassVar[str | None] = (
        "it gives its membrane on as a real number: its spikes leave it nowhere, and lose nothing"
    )
    is_binary: ClassVar[bool] = False
    carry_state: ClassVar[bool] = False
    backend: ClassVar[str] = "auto"

    def __init__(
        self,
        channels: int | None = None,
        *,
        activation: Activation = "selu",
        threshold_related: bool = False,
        decay: float = 0.7,
        learn_decay: bool = False,
        v_threshold: float = 0.5,
    ) -> None:
        super().__init__()
        functional.check(decay=decay, v_threshold=v_threshold, v_reset=0.0)
        problems = []
        if activation not in ACTIVATIONS:
            fix = "one of " + ", ".join(ACTIVATIONS)
            problems.append(Problem(f"activation = {activation!r}", "is unknown", fix))
        if learn_decay and not 0 < decay < 1:
            what = "must lie in (0, 1) to be learnt"
            problems.append(Problem(f"decay = {decay!r}", what, "decay=0.622: p = 0.5"))
        if problems:
            raise UserError("bad neuron", problems)
        self.activation = activation
        self.threshold_related = threshold_related
        self.v_threshold = v_threshold
        self.decay = decay
        self.p: nn.Parameter | None = None
        if learn_decay:
            self.p = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))
        self.layer_name, self.place = "", ""

    def forward(self, x: Tensor) -> Tensor:
        """The outputs y `[T, B, C, ...]` of the input current x, in its type."""
        ops.check_current(x)
        if x.ndim < 3 or not x.numel():
            raise UserError(
                f"x has shape {list(x.shape)}; a neuron needs [T, B, C, ...], time first, none 0"
            )
        wide = ops.at_least_single(x)
        u = self._integrate(wide)
        self._record(wide.detach(), u.detach())
        shifted = u - self.v_threshold if self.threshold_related else u
        return ACTIVATIONS[self.activation](shifted).to(x.dtype)

    def membrane(self, x: Tensor) -> Tensor:
        """u `[T, B, C, ...]` for the input current x, without gradient: to look at."""
        with torch.no_grad():
            return self._integrate(ops.at_least_single(x))

    def extra_repr(self) -> str:
        """The values that differ between neurons."""
        decay = float(self._decay()) if self.p is None else float(self.p.detach().sigmoid())
        return (
            f"activation={self.activation!r}, threshold_related={self.threshold_related}, "
            f"decay={decay:.4g}, v_threshold={self.v_threshold}"
        )

    def _decay(self) -> Tensor | float:
        return self.decay if self.p is None else self.p.sigmoid()

    def _integrate(self, x: Tensor) -> Tensor:
        """u of every step; the gradient passes time where a cell did not fire."""
        decay, u, every = self._decay(), x[0], [x[0]]
        for x_t in x[1:].unbind(0):
            silent = u.detach() < self.v_threshold
            u = decay * torch.where(silent, u, 0.0) + x_t
            every.append(u)
        return torch.stack(every)

    def _record(self, x: Tensor, u: Tensor) -> None:
        stats = open_stats()
        if stats is None:
            return
        potential = x if stats.spec.potential == "input" else u
        o, target = ((p >= self.v_threshold).to(u.dtype) for p in (u, potential))
        u, o, target = (part.flatten(0, 1) for part in (potential, o, target))
        moments = membrane_moments(u, o, target, stats.spec)
        stats.record(self, moments, u.numel() // u.shape[1])
