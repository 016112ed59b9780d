"""The sum of several weighted regularizers."""

import dataclasses
from typing import Any

import torch
from torch import Tensor

from rmploss.arguments import checked
from rmploss.errors import Problem, UserError
from rmploss.objectives.regularizer import Regularizer
from rmploss.objectives.weighting import weighted, weights_of
from rmploss.stats import MembraneStats


class SeveralRegularizers:
    """The sum of regularizers, each with its own options and schedule; dimensionless.

    names: two or more entries of `OBJECTIVES` with the same `spec`; else `UserError`. If one of
        them needs moments per step, those are taken: the sums over time follow from them.
    options: of the regularizers, by name: (("im.weight", 0.5), ("rmp.k", 0.3)); others are at their
        defaults.
    """

    @checked()
    def __init__(
        self,
        *,
        names: tuple[str, ...] = ("im", "rmp"),
        options: tuple[tuple[str, str | float | int | bool | None], ...] = (),
    ) -> None:
        from rmploss.objectives import OBJECTIVES  # not above: the table imports this file

        given: dict[str, dict[str, Any]] = {name: {} for name in names}
        for option, value in options:
            of, _, word = option.partition(".")
            if of not in given or not word:
                what, fix = "is no option of these regularizers", "('rmp.k', 0.3)"
                raise UserError("bad regularizers", [Problem(f"options: {option!r}", what, fix)])
            given[of][word] = value
        made = (name for name in names if name not in ("none", "several"))
        found = [OBJECTIVES.make(name, **given[name]) for name in made]
        if len(found) != len(names) or len(set(names)) < max(2, len(names)):
            what, fix = "must be two or more different regularizers", "('im', 'rmp')"
            raise UserError("bad regularizers", [Problem(f"names = {names!r}", what, fix)])
        self.terms: list[Regularizer] = found
        specs = [term.spec for term in found]
        per_step = any(spec.per_step for spec in specs)
        self.spec = dataclasses.replace(specs[0], per_step=per_step)
        if any(dataclasses.replace(spec, per_step=per_step) != self.spec for spec in specs):
            what = "take different moments of the membrane"
            raise UserError("bad regularizers", [Problem(f"names = {names!r}", what)])

    def __call__(self, stats: MembraneStats, progress: float) -> Tensor:
        """The sum of the weighted terms, a scalar."""
        return weighted(self, stats, weights_of(self, progress))

    def remarks(self, stats: MembraneStats) -> list[str]:
        """Those of the regularizers."""
        return [remark for term in self.terms for remark in term.remarks(stats)]

    def weight(self, progress: float) -> float:
        """The weight of the last regularizer."""
        return self.terms[-1].weight(progress)

    def value(self, stats: MembraneStats) -> Tensor:
        """The sum of the terms without their weights, a scalar."""
        return torch.stack([term.value(stats) for term in self.terms]).sum()
