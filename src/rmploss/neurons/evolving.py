"""The evolutionary surrogate of IM-Loss (Guo et al., NeurIPS 2022): steeper from epoch to epoch.

    phi(v) = 1/2 tanh(K v) + 1/2,    K(n) = ((10^(n/N) - 1) K_max + (10 - 10^(n/N)) K_min) / 9

With K_min = 1 and K_max = 10, K(n) = 10^(n/N). The form of K is second-hand: the paper's text could
not be read (`rmploss list methods`).
"""

import math
from typing import Unpack

from rmploss.arguments import checked, collect
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.lif import LIF, MembraneOptions
from rmploss.surrogate import Sigmoid


class EvolvingLIF(LIF):
    """`LIF` with the evolutionary surrogate; tanh(K v)/2 + 1/2 is `Sigmoid` with alpha = 2 K.

    channels, decay, others: of `LIF`.
    k_min, k_max: K at progress 0 and 1, dimensionless.

    Raises `UserError` for values out of range.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        decay: float = 0.25,
        k_min: float = 1.0,
        k_max: float = 10.0,
        **lif: Unpack[MembraneOptions],
    ) -> None:
        if not 0 < k_min <= k_max < math.inf:
            where, what = f"k_min, k_max = {k_min!r}, {k_max!r}", "must be positive, k_min <= k_max"
            problems = [Problem(where, what, "second-hand: 1, 10")]
            collect(problems, lambda: LIF(channels, decay=decay, **lif))
            raise UserError("bad EvolvingLIF", problems)
        super().__init__(channels, decay=decay, surrogate=Sigmoid(alpha=2 * k_min), **lif)
        self.k_min, self.k_max = k_min, k_max

    def evolve(self, progress: float) -> None:
        """Take the surrogate of progress n / N."""
        grown = 10**progress
        k = ((grown - 1) * self.k_max + (10 - grown) * self.k_min) / 9
        self.surrogate = Sigmoid(alpha=2 * k)
