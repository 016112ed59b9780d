"""The Van Rossum distance of outputs to a target spike train (TSSL-BP, Zhang and Li, NeurIPS 2020).

    L = 1/2 sum over samples, classes and steps of (a(t) - d(t))^2

a: the post-synaptic currents of the output neurons; d: the target spikes of the label's class after
the same filter, and 0 for every other class.
"""

from typing import ClassVar, Literal

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.neurons.tssl import post_synaptic
from rmploss.objectives.inputs import require_outputs
from rmploss.objectives.smoothing import smooth_one_hot, smoothing_problems
from rmploss.ops import at_least_single

PATTERN = (0, 1, 0, 1, 1)
"""The target spikes of the paper's code for T = 5."""


class VanRossum:
    """1/2 sum (a - d)^2 over classes and steps, the mean over samples, times `weight`.

    weight: dimensionless. The published loss is a sum over a batch, so that it depends on the split
        into ranks and micro-batches; 50, the published batch size, gives that sum for 50 samples
        with any split. This matters if gradients are clipped to a norm.
    pattern: the target spikes of the T steps, 0 or 1 each; empty: the published (0, 1, 0, 1, 1)
        for T = 5, and 0, 1, 0, 1, ... for any other T (published for T >= 10).
    tau_s: the time constant of the filter, in steps: 2 for neurons of generation A, 3 for B.
    filters: filter the target once, or twice as the authors' code since October 2020.
    smoothing: of the labels, in [0, 1): of the target, every class gets smoothing / K, and the
        label's class 1 - smoothing more (smoothing.py).

    Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(
        self,
        *,
        weight: float = 1.0,
        pattern: tuple[int, ...] = (),
        tau_s: float = 2.0,
        filters: Literal[1, 2] = 1,
        smoothing: float = 0.0,
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
        problems += smoothing_problems(smoothing)
        if problems:
            raise UserError("bad Van Rossum loss", problems)
        self.smoothing = smoothing
        self.weight = weight
        self.pattern = tuple(pattern)
        self.tau_s = tau_s
        self.filters = filters
        self._targets: dict[tuple[int, torch.dtype, torch.device], Tensor] = {}

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The distance, a scalar.

        outputs: a `[T, B, K]`.
        logits: not used.
        labels: `[B]`.
        """
        require_outputs(outputs, labels)
        a = at_least_single(outputs)
        chosen = smooth_one_hot(labels, a.shape[2], self.smoothing, a.dtype)
        d = self._target_like(a).view(-1, 1, 1) * chosen
        return self.weight * (a - d).square().sum() / (2 * len(labels))

    def target(self, T: int) -> Tensor:
        """d(t) of the label's class, `[T]`, float64."""
        d = torch.tensor(self._spikes(T), dtype=torch.float64)
        for _ in range(self.filters):
            d = post_synaptic(d, self.tau_s)
        return d

    def _target_like(self, a: Tensor) -> Tensor:
        """`target` in the type and on the device of a `[T, B, K]`: copied there once."""
        key = (a.shape[0], a.dtype, a.device)
        if key not in self._targets:
            self._targets[key] = self.target(a.shape[0]).to(a)
        return self._targets[key]

    def _spikes(self, T: int) -> tuple[int, ...]:
        if self.pattern:
            if len(self.pattern) != T:
                where = f"pattern = {self.pattern!r}"
                what = f"has {len(self.pattern)} steps, the outputs have {T}"
                raise UserError("bad Van Rossum loss", [Problem(where, what, f"T={T} entries")])
            return self.pattern
        if len(PATTERN) == T:
            return PATTERN
        # T = 1: a target without a spike would be silence for every class.
        return tuple(t % 2 for t in range(T)) if T > 1 else (1,)
