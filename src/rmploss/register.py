"""Register data sets, networks, neurons, ... of your own, under names that every command knows.

    rmploss.register.dataset("mine", MyData)

or, of a class or function, as a decorator: `@rmploss.register.neuron("mine")`. There is one
function per family (`rmploss list`); docs/add-a-method.md and docs/your-data.md show entries.
"""

import importlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar, overload

from torch import nn
from torch.optim import Optimizer

from rmploss.arguments import checked
from rmploss.data import DataSet
from rmploss.errors import Problem, UserError
from rmploss.models import SpikingNetwork
from rmploss.neurons import SpikingLayer
from rmploss.objectives import Loss, Objective
from rmploss.objectives.schedules import Schedule
from rmploss.recipes import RECIPES, Recipe
from rmploss.registry import Registry
from rmploss.surrogate import Surrogate

T = TypeVar("T")
E = TypeVar("E")


class Family(Generic[T]):
    """Register an entry of one family, directly or as a decorator; returns the entry.

    name: of the function, for messages.
    place: "module:registry", imported when an entry is registered.

    Raises `UserError` for a name that is taken, and for an entry that cannot be one.
    """

    def __init__(self, name: str, place: str) -> None:
        self.__name__ = f"register.{name}"
        self._place = place

    @overload
    def __call__(self, name: str, entry: T) -> T: ...

    @overload
    def __call__(self, name: str) -> Callable[[E], E]: ...

    @checked()
    def __call__(self, name: str, entry: Any = None) -> Any:
        """Register `entry` under `name`."""
        if entry is None:
            return lambda entry: self._add(name, entry)
        return self._add(name, entry)

    def _add(self, name: str, entry: Any) -> Any:
        registry = self.registry
        if not callable(entry):
            what = f"is a {type(entry).__name__}, neither a class nor a function"
            problem = Problem(f"{registry.kind} {name!r}", what, "pass the class, not an instance")
            raise UserError(f"cannot register {registry.kind} {name!r}", [problem])
        registry.add(name, entry)
        return entry

    @property
    def registry(self) -> Registry[Any]:
        """The registry of the family."""
        module, _, attribute = self._place.partition(":")
        return getattr(importlib.import_module(module), attribute)


dataset: Family[type[DataSet]] = Family("dataset", "rmploss.data:DATASETS")
network: Family[type[SpikingNetwork]] = Family("network", "rmploss.models:MODELS")
neuron: Family[type[SpikingLayer]] = Family("neuron", "rmploss.neurons:NEURONS")
surrogate: Family[type[Surrogate]] = Family("surrogate", "rmploss.surrogate:SURROGATES")
norm: Family[type[nn.Module]] = Family("norm", "rmploss.norm:NORMS")
loss: Family[type[Loss]] = Family("loss", "rmploss.objectives:LOSSES")
auxiliary: Family[type[Loss]] = Family("auxiliary", "rmploss.objectives:AUXILIARIES")
objective: Family[type[Objective]] = Family("objective", "rmploss.objectives:OBJECTIVES")
schedule: Family[Schedule] = Family("schedule", "rmploss.objectives:SCHEDULES")
optimizer: Family[Callable[..., Optimizer]] = Family(
    "optimizer", "rmploss.engine.optimizers:OPTIMIZERS"
)
lr_schedule: Family[Callable[..., float]] = Family(
    "lr_schedule", "rmploss.engine.optimizers:LR_SCHEDULES"
)
average: Family[Callable[..., Any]] = Family("average", "rmploss.engine.averaging:AVERAGES")
start: Family[Callable[..., Any]] = Family("start", "rmploss.engine.starts:STARTS")


@checked()
def recipe(entry: Recipe) -> Recipe:
    """Register a recipe under its own name; returns it."""
    RECIPES.add(entry.name, entry)
    return entry


FAMILIES: dict[str, Family[Any]] = {
    name: family for name, family in globals().items() if isinstance(family, Family)
}
"""All families but recipes, by the name of their function."""
