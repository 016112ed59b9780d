"""PLIF (Fang et al., ICCV 2021): every layer learns its time constant.

    u_pre(t) = u(t-1) + k (x(t) - u(t-1)) = (1 - k) u(t-1) + k x(t),    k = sigmoid(w) = 1 / tau

The input is scaled by 1 / tau, and the reset carries no gradient.
"""

import math

import torch
from torch import Tensor, nn

from rmploss.arguments import checked, collect
from rmploss.errors import Problem, UserError
from rmploss.functional import ADVICE
from rmploss.neurons.lif import LIF, IFOptions
from rmploss.surrogate import Surrogate


class PLIF(LIF):
    """`LIF` whose decay 1 - k and input gain k are learnt, one w per layer; all dimensionless.

    tau: 1 / k at the start, in time steps, above 1.
    v_reset: 0, or None for the soft reset.
    channels, v_threshold, detach_reset, surrogate, carry_state: of `LIF`.

    Raises `UserError` for values out of range.
    """

    @checked(**ADVICE)
    def __init__(
        self,
        channels: int | None = None,
        *,
        tau: float = 2.0,
        v_threshold: float = 1.0,
        v_reset: float | None = 0.0,
        detach_reset: bool = True,
        surrogate: str | Surrogate = "arctan",
        carry_state: bool = False,
    ) -> None:
        problems = []
        if not 1 < tau < math.inf:
            problems.append(Problem(f"tau = {tau!r}", "must be above 1", "the paper: 2"))
        if v_reset not in (0, None):
            what = "must be 0 or none: the leak pulls towards it"
            problems.append(Problem(f"v_reset = {v_reset!r}", what, "the paper: 0"))
        lif: IFOptions = {
            "v_threshold": v_threshold,
            "v_reset": v_reset,
            "detach_reset": detach_reset,
            "surrogate": surrogate,
            "carry_state": carry_state,
        }
        if problems:
            collect(problems, lambda: LIF(channels, **lif))
            raise UserError("bad PLIF", problems)
        super().__init__(channels, decay=1 - 1 / tau, **lif)
        self.w = nn.Parameter(torch.tensor(-math.log(tau - 1)))

    def input_gain(self) -> Tensor:
        """k."""
        return self.w.sigmoid()

    def constants(self) -> tuple[Tensor, float]:
        """1 - k, and the threshold."""
        return 1 - self.w.sigmoid(), self.v_threshold

    def extra_repr(self) -> str:
        """With the time constant that was learnt."""
        return f"tau={1 / float(self.w.detach().sigmoid()):.4g}, {super().extra_repr()}"
