"""The output neuron: it accumulates, without leak and without firing (Eq. 4)."""

from typing import Literal

from torch import Tensor, nn

from rmploss import functional
from rmploss.arguments import checked
from rmploss.entry import Untraceable, entry


class Accumulator(Untraceable, nn.Module):
    """Read-out `[T, B, K]` to `[B, K]`: the membrane u(T) after u(t) = u(t-1) + x(t) (Eq. 4).

    reduction: "sum" is the paper's; "mean" divides by T, as the authors' code does, which rescales
    the logits and with them the gradients of the cross-entropy. With carry_state=True the sum goes
    on from call to call until `reset_state()` ("sum" only); its gradient does not, and a warning
    says so.
    """

    @checked()
    def __init__(
        self, *, reduction: Literal["sum", "mean"] = "sum", carry_state: bool = False
    ) -> None:
        super().__init__()
        functional.check_readout(reduction, carry_state)
        self.reduction: Literal["sum", "mean"] = reduction
        self.carry_state = carry_state
        self.u: Tensor | None = None
        self._had_gradient = False

    @entry
    def forward(self, x: Tensor) -> Tensor:
        """The accumulated membrane `[B, K]` of the inputs x `[T, B, K]`."""
        u = functional.carried(self.u, self._had_gradient) if self.carry_state else None
        u = functional.accumulate(x, u, reduction=self.reduction)
        if self.carry_state:
            self.u, self._had_gradient = u.detach(), u.requires_grad
        return u

    @entry
    def step(self, x: Tensor) -> Tensor:
        """The membrane `[B, K]` after one more time step x `[B, K]`; only with carry_state=True."""
        functional.check_carry(self.carry_state)
        return self.forward(x.unsqueeze(0))

    def reset_state(self) -> None:
        """Bring a carried membrane back to zero."""
        self.u, self._had_gradient = None, False

    def extra_repr(self) -> str:
        """The reduction."""
        return f"reduction={self.reduction!r}"
