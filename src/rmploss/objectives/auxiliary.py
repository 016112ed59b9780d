"""Auxiliary losses: functions of the outputs of every time step, added to any classification loss.

    L = classification + auxiliary + lambda(n) regularizer

An auxiliary loss has the form of a `Loss`. It takes the outputs O(t) of the steps as they are:
under the read-out "sum" they are about 1/T of the logits, under "mean" of their size.
"""

from typing import Any, ClassVar

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.objectives.inputs import require_outputs
from rmploss.objectives.losses import Loss, every_step
from rmploss.objectives.smoothing import smoothing_problems
from rmploss.ops import at_least_single
from rmploss.registry import Registry


class NoAuxiliary:
    """No auxiliary loss: 0."""

    needs: ClassVar[str] = ""

    def __call__(self, outputs: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """Zero, a scalar."""
        return at_least_single(logits).new_zeros(())


class EveryStep:
    """The term of TET (Deng et al., ICLR 2022): the cross-entropy of every time step.

        weight 1/T sum_t CE(O(t), y)

    weight: dimensionless. The loss "tet" is this term at weight 1 - lambda instead of the
        classification loss; here both stand side by side.
    smoothing: of the labels, in [0, 1) (smoothing.py).

    Raises `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(self, *, weight: float = 0.1, smoothing: float = 0.0) -> None:
        problems = _weight_problems(weight, "0.1") + smoothing_problems(smoothing)
        if problems:
            raise UserError("bad auxiliary loss", problems)
        self.weight, self.smoothing = weight, smoothing

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The weighted mean over steps and samples, a scalar."""
        require_outputs(outputs, labels)
        return self.weight * every_step(at_least_single(outputs), labels, self.smoothing)


class Several:
    """The sum of auxiliary losses, each with its default options; dimensionless.

    names: two or more different entries of `AUXILIARIES`; else `UserError`.
    """

    needs: ClassVar[str] = "outputs"

    @checked()
    def __init__(self, *, names: tuple[str, ...] = ("every_step", "self_distillation")) -> None:
        found = [AUXILIARIES.make(name) for name in names if name not in ("none", "several")]
        if len(found) != len(names) or len(set(names)) < max(2, len(names)):
            what = "must be two or more different auxiliary losses"
            fix = "('every_step', 'self_distillation')"
            raise UserError("bad auxiliary losses", [Problem(f"names = {names!r}", what, fix)])
        self.terms: list[Loss] = found

    def __call__(self, outputs: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of the weighted terms, a scalar."""
        return torch.stack([term(outputs, logits, labels) for term in self.terms]).sum()


class WithAuxiliary:
    """A classification loss plus an auxiliary loss.

    loss: the classification loss.
    auxiliary: the auxiliary loss.
    """

    needs: ClassVar[str] = "outputs"

    def __init__(self, loss: Loss, auxiliary: Loss) -> None:
        self.loss, self.auxiliary = loss, auxiliary

    def __call__(self, outputs: Any, logits: Tensor, labels: Tensor) -> Tensor:
        """The sum of both, a scalar."""
        return self.loss(outputs, logits, labels) + self.auxiliary(outputs, logits, labels)


def _weight_problems(weight: float, usual: str) -> list[Problem]:
    """The problem of a weight that is negative or not finite; empty if there is none."""
    if 0 <= weight < float("inf"):
        return []
    return [Problem(f"weight = {weight!r}", "must be >= 0", usual)]


AUXILIARIES: Registry[type[Loss]] = Registry(
    "auxiliary loss",
    {
        "none": "rmploss.objectives.auxiliary:NoAuxiliary",
        "every_step": "rmploss.objectives.auxiliary:EveryStep",
        "self_distillation": "rmploss.objectives.self_distillation:SelfDistillation",
        "several": "rmploss.objectives.auxiliary:Several",
    },
    family="auxiliary",
)
