"""The cost of training with each method: a step of its fair recipe, beside the vanilla network's.

The recipes of the fair comparison (`rmploss.recipes.fair`) differ in the method alone, so a ratio
is the cost of the method: of its neurons, its loss, its second branch. There is no gate here:
methods compute different results, and the tests of rmploss hold each to its own equations.
"""

from collections.abc import Iterable

import torch

from rmploss.engine.build import make_dataset, make_loss, make_network, make_objective
from rmploss.engine.step import forward_backward
from rmploss.errors import UserError, unknown
from rmploss.lifecycle import constrain
from rmploss.objectives.weighting import weights_of
from rmploss.recipes import METHODS
from rmploss.recipes.fair import fair
from rmploss_bench.ours import PROGRESS
from rmploss_bench.runners import LR, Runner
from rmploss_bench.timing import Result, Ticker, rounds
from rmploss_bench.workload import Workload

VANILLA = "vanilla"
"""The method that the ratios divide by."""


class MethodRunner(Runner):
    """The network of a method's fair recipe, with the workload's width, T and batch."""

    def __init__(self, workload: Workload, name: str) -> None:
        recipe = fair(METHODS[name])
        network = recipe.network.but(width=workload.conditions.width)
        recipe = recipe.but(network=network, T=workload.conditions.T)
        self.net = make_network(recipe, make_dataset(recipe)).to(workload.images.device)
        self.loss, self.objective = make_loss(recipe), make_objective(recipe)
        self.images, self.labels = workload.images, workload.labels
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LR, momentum=0.9)

    def step(self) -> None:
        """One training step."""
        self.optimizer.zero_grad(set_to_none=True)
        forward_backward(
            self.net.train(),
            self.objective,
            self.images,
            self.labels,
            weights=weights_of(self.objective, PROGRESS),
            loss=self.loss,
        )
        self.optimizer.step()
        constrain(self.net)

    def infer(self) -> None:
        """One forward without gradients."""
        with torch.no_grad():
            self.net.eval()(self.images)


def chosen(names: Iterable[str]) -> list[str]:
    """The methods that were asked for, in the order of `METHODS`.

    names: the methods asked for; if empty, all that have a fair recipe.
    Raises `UserError` for an unknown name.
    """
    able = [m.name for m in METHODS.values() if m.parts or m.name == VANILLA]
    asked = list(names) or able
    wrong = [unknown("--only", name, able) for name in asked if name not in able]
    if wrong:
        raise UserError("no such method", wrong)
    return [name for name in able if name in asked]


def methods(workload: Workload, names: list[str], repeats: int, tick: Ticker) -> list[Result]:
    """Seconds of a training step of each method.

    workload: size and batch.
    names: methods.
    repeats: rounds.
    tick: called with the progress of the work.
    """
    runners = {name: MethodRunner(workload, name) for name in names}
    seconds = rounds(
        {name: runner.step for name, runner in runners.items()},
        repeats,
        tick,
        workload.conditions.device,
    )
    return [Result(name, "step (s)", seconds[name], "no gate") for name in names]
