"""InfLoR-SNN (Guo et al., ECCV 2022): the membrane is redistributed before it fires.

    u_pre(t) = u(t-1) + x(t)                                no leak
    o(t)     = 1[phi(u_pre(t)) >= 1/2]
    u(t)     = u_pre(t) - o(t)                              the soft reset subtracts the spike

    phi(u)   = 1 - (1 - u)^(1/3), u < 0;   tanh(3 (u - 1/2)) / (2 tanh(3/2)) + 1/2;   u^(1/3), u > 1

phi is monotone with phi(1/2) = 1/2, so it moves no spike; and behind it the authors' code takes the
slope 1 of a clamp to [0, 1], which leaves of phi' the part on [0, 1]: Eq. 5 of RMP-Loss. So these
are integrate-and-fire neurons with that surrogate, in training and in inference: phi is never
evaluated, costs nothing, and is removed exactly.
"""

from rmploss.arguments import checked
from rmploss.functional import ADVICE
from rmploss.neurons.lif import IF
from rmploss.surrogate import Surrogate


class InfLoR(IF):
    """`IF` with threshold 1/2 whose soft reset subtracts 1, not detached; dimensionless.

    channels, surrogate, carry_state: of `LIF`.

    Raises `UserError` for values out of range.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        surrogate: str | Surrogate = "clipped_tanh",
        carry_state: bool = False,
    ) -> None:
        super().__init__(
            channels, v_reset=None, reset_by=1.0, surrogate=surrogate, carry_state=carry_state
        )
