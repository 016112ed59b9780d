"""What training by each method costs: a step of its fair recipe, beside the vanilla network's.

The recipes of the fair comparison (recipes/fair.py) differ in the method alone, so the ratios are
what a method costs in training: its neurons, its loss, its second branch. Each is held to its own
equations by its tests; there is no common result that a gate could ask for.
"""

from collections.abc import Iterable

import torch

from rmploss.engine.build import make_dataset, make_loss, make_network, make_objective
from rmploss.engine.step import forward_backward
from rmploss.errors import UserError, unknown
from rmploss.lifecycle import constrain
from rmploss.recipes import METHODS
from rmploss.recipes.fair import fair
from rmploss_bench.case import Case
from rmploss_bench.contestants import LR, Runner
from rmploss_bench.timing import Progress, Result, rounds

VANILLA = "vanilla"
"""The method that ratios are told against."""
PROGRESS = 0.5
"""n / N, where lambda(n) of Eq. 12 is largest."""


class MethodRunner(Runner):
    """The network of a method's fair recipe, of the size of the case, on its batch."""

    def __init__(self, case: Case, name: str) -> None:
        recipe = fair(METHODS[name])
        network = recipe.network.but(width=case.setting.width)
        recipe = recipe.but(network=network, T=case.setting.T)
        self.net = make_network(recipe, make_dataset(recipe)).to(case.images.device)
        self.loss, self.objective = make_loss(recipe), make_objective(recipe)
        self.images, self.labels = case.images, case.labels
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LR, momentum=0.9)

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad(set_to_none=True)
        forward_backward(
            self.net.train(),
            self.objective,
            self.images,
            self.labels,
            progress=PROGRESS,
            loss=self.loss,
        )
        self.optimizer.step()
        constrain(self.net)

    def infer(self) -> None:
        """One forward without gradients."""
        with torch.no_grad():
            self.net.eval()(self.images)


def chosen(names: Iterable[str]) -> list[str]:
    """The methods asked for, in the order of their table; all that can be compared if none is."""
    able = [m.name for m in METHODS.values() if m.parts or m.name == VANILLA]
    asked = list(names) or able
    wrong = [unknown("--only", name, able) for name in asked if name not in able]
    if wrong:
        raise UserError("no such method", wrong)
    return [name for name in able if name in asked]


def methods(case: Case, names: list[str], repeats: int, progress: Progress) -> list[Result]:
    """Seconds of a training step of each method."""
    runners = {name: MethodRunner(case, name) for name in names}
    seconds = rounds(
        {name: runner.step for name, runner in runners.items()},
        repeats,
        progress,
        case.setting.device,
    )
    return [Result(name, "step (s)", seconds[name], "no gate") for name in names]
