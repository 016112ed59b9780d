"""The Van Rossum distance (TSSL-BP, Zhang and Li, NeurIPS 2020): outputs to a desired train.

    L = 1/2 sum over samples, classes and steps of (a(t) - d(t))^2

a: the post-synaptic currents of the output neurons; d: the desired spikes of the label's class,
filtered as the neurons filter theirs, and 0 for every other class.
"""

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.neurons.tssl import post_synaptic
from rmploss.ops import at_least_single

PATTERN = (0, 1, 0, 1, 1)
"""The desired spikes of the paper's code for T = 5."""


class VanRossum:
    """1/2 sum (a - d)^2 over classes and steps, the mean over samples, times `weight`.

    pattern: the desired spikes of the T steps, 0 or 1 each; empty: the published (0, 1, 0, 1, 1)
    for T = 5, and 0, 1, 0, 1, .. for any other T (published for T >= 10). tau_s: of the filter, in
    steps; 2 as the neurons of generation A, 3 for B. filters: how often the desired train is
    filtered: once, or twice as the code does since October 2020.

    The published loss is a sum over the batch as well, so it depends on how a batch is shared out.
    weight = 50, the published batch, makes it that sum for 50 samples, whatever the ranks and
    parts; it matters where gradients are clipped to a norm.
    """

    needs: ClassVar[str] = "outputs"

    def __init__(
        self,
        *,
        weight: float = 1.0,
        pattern: tuple[int, ...] = (),
        tau_s: float = 2.0,
        filters: Literal[1, 2] = 1,
    ) -> None:
        problems = []
        if not 0 < weight < float("inf"):
            problems.append(Problem(f"weight = {weight!r}", "must be positive", "1, a mean"))
        if not set(pattern) <= {0, 1}:
            what = "must be spikes, 0 or 1 at every step"
            problems.append(Problem(f"pattern = {pattern!r}", what, f"{PATTERN}"))
        if not 1 <= tau_s < float("inf"):
            problems.append(Problem(f"tau_s = {tau_s!r}", "must be at least 1", "the paper: 2"))
        if filters not in (1, 2):
            problems.append(Problem(f"filters = {filters!r}", "must be 1 or 2", "1, as published"))
        if problems:
            raise UserError("bad Van Rossum loss", problems)
        self.weight = weight
        self.pattern = tuple(pattern)
        self.tau_s = tau_s
        self.filters = filters

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The distance; outputs: a `[T, B, K]`."""
        a = at_least_single(outputs)
        chosen = F.one_hot(labels, a.shape[2]).to(a.dtype)
        d = self.desired(a.shape[0]).to(a).view(-1, 1, 1) * chosen
        return self.weight * (a - d).square().sum() / (2 * len(labels))

    def desired(self, T: int) -> Tensor:
        """d(t) of the label's class, `[T]`, float64."""
        d = torch.tensor(self._spikes(T), dtype=torch.float64)
        for _ in range(self.filters):
            d = post_synaptic(d, self.tau_s)
        return d

    def _spikes(self, T: int) -> tuple[int, ...]:
        if self.pattern:
            if len(self.pattern) != T:
                where = f"pattern = {self.pattern!r}"
                what = f"has {len(self.pattern)} steps, the outputs have {T}"
                raise UserError("bad Van Rossum loss", [Problem(where, what, f"T={T} entries")])
            return self.pattern
        if len(PATTERN) == T:
            return PATTERN
        # A single step that desired nothing would teach nothing.
        return tuple(t % 2 for t in range(T)) if T > 1 else (1,)
