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

from rmploss import functional
from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.layer import SpikingLayer, channel_problems

Activation = Literal["selu", "relu", "leaky_relu"]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "selu": F.selu,
    "relu": F.relu,
    "leaky_relu": partial(F.leaky_relu, negative_slope=0.2),
}
"""f by name."""


class LIAF(SpikingLayer):
    """LIAF cells: `[T, B, C, ...]` input current to analog outputs of the same shape.

    All quantities are dimensionless.

    channels: of `LIF`.
    activation: f, a name in `ACTIVATIONS`.
    threshold_related: give f(u - v_threshold) on, not f(u).
    decay: in [0, 1]; with learn_decay in (0, 1).
    learn_decay: learn decay = sigmoid(p), one p per layer, from there.
    v_threshold: at which a cell is reset.

    Raises `UserError` for values out of range.
    """

    unregularized: ClassVar[str | None] = (
        "its output is a real number, not a spike: there is no quantization error"
    )

    @checked(**{**ADVICE, "activation": "one of " + ", ".join(ACTIVATIONS)})
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
        problems = channel_problems(channels)
        problems += functional.problems_in(decay=decay, v_threshold=v_threshold, v_reset=0.0)
        if activation not in ACTIVATIONS:
            fix = "one of " + ", ".join(ACTIVATIONS)
            problems.append(Problem(f"activation = {activation!r}", "is unknown", fix))
        if learn_decay and not 0 < decay < 1:
            what = "must lie in (0, 1) to be learnt"
            problems.append(Problem(f"decay = {decay!r}", what, "decay=0.622: p = 0.5"))
        if problems:
            raise UserError("bad LIAF", problems)
        super().__init__(channels, v_threshold)
        self.activation = activation
        self.threshold_related = threshold_related
        self.decay = decay
        self.p: nn.Parameter | None = None
        if learn_decay:
            self.p = nn.Parameter(torch.tensor(math.log(decay / (1 - decay))))

    def integrate(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """y and u of every step; the gradient passes time where a cell did not fire."""
        decay, u, every = self._decay(), x[0], [x[0]]
        for x_t in x[1:].unbind(0):
            silent = u.detach() < self.v_threshold
            u = decay * torch.where(silent, u, 0.0) + x_t
            every.append(u)
        u = torch.stack(every)
        shifted = u - self.v_threshold if self.threshold_related else u
        return ACTIVATIONS[self.activation](shifted), u

    def extra_repr(self) -> str:
        """The values that differ between neurons."""
        decay = float(self._decay()) if self.p is None else float(self.p.detach().sigmoid())
        return (
            f"activation={self.activation!r}, threshold_related={self.threshold_related}, "
            f"decay={decay:.4g}, v_threshold={self.v_threshold}"
        )

    def _decay(self) -> Tensor | float:
        return self.decay if self.p is None else self.p.sigmoid()
