"""Diet-SNN (Rathi and Roy 2020): every layer learns its leak l and its threshold v.

    m(t) = l m(t-1) + x(t);   o(t) = 1[m(t) / v - 1 >= 0];   m(t) <- m(t) - v o(t)

The surrogate is the tent 0.3 max(0, 1 - |m / v - 1|), and the reset carries no gradient to the
spike, but one to v. With u = m / v this is the neuron of Eqs. 1-3 with decay l, input current
x / v, threshold 1 and the soft reset, gradients included; that is how it is computed.
"""

import math

import torch
from torch import Tensor, nn

from rmploss.arguments import checked, collect
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.lif import LIF
from rmploss.surrogate import Surrogate, Triangle


class Diet(LIF):
    """`LIF` with a learnt leak (at most 1) and threshold, one each per layer; all dimensionless.

    The membrane of this layer, and so of its moments, is m / v.

    channels, carry_state: of `LIF`.
    leak, threshold: at the start.
    surrogate: of `LIF`; None: the paper's triangle, of height 0.3.

    Raises `UserError` for values out of range.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        leak: float = 1.0,
        threshold: float = 1.0,
        surrogate: str | Surrogate | None = None,
        carry_state: bool = False,
    ) -> None:
        if not 0 < threshold < math.inf:
            problems = [Problem(f"threshold = {threshold!r}", "must be positive", "1.0")]
            collect(problems, lambda: LIF(channels, decay=leak, surrogate=surrogate or "triangle"))
            raise UserError("bad Diet", problems)
        super().__init__(
            channels,
            decay=leak,
            v_threshold=1.0,
            v_reset=None,
            detach_reset=True,
            surrogate=surrogate or Triangle(width=1.0, damping=0.3),
            carry_state=carry_state,
        )
        self.leak = nn.Parameter(torch.tensor(float(leak)))
        self.threshold = nn.Parameter(torch.tensor(float(threshold)))

    def input_gain(self) -> Tensor:
        """1 / v."""
        return self.threshold.reciprocal()

    def constants(self) -> tuple[Tensor, float]:
        """The leak, and the threshold of m / v: 1."""
        return self.leak, self.v_threshold

    def constrain(self) -> None:
        """Keep the leak at 1 or below, as the authors' code does after each step."""
        self.leak.clamp_(max=1.0)

    def extra_repr(self) -> str:
        """The values that were learnt."""
        leak, threshold = float(self.leak.detach()), float(self.threshold.detach())
        return f"leak={leak:.4g}, threshold={threshold:.4g}"
