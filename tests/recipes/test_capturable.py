"""A CUDA graph can hold a training step of every recipe. No GPU is needed (`tests/fake_gpu.py`)."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss import recipes
from rmploss.engine.step import TrainingStep
from rmploss.models import MODELS
from rmploss.neurons.lif import LIF
from rmploss.recipes import Recipe
from tests.fake_gpu import GPU, HostError, Strict, fake_gpu, make_step

pytestmark = pytest.mark.skipif(not find_spec("triton"), reason="Triton is not installed")

EAGER: dict[str, str] = {}
"""Recipes whose step cannot be captured -> the reason. There is none."""


def parts(recipe: Recipe) -> set[tuple[object, ...]]:
    """What decides the code of a step: the system on its kind of network, each choice alone."""
    kind = MODELS[recipe.network.name].__module__  # networks of one file differ in size
    alone = ("neuron", "norm", "loss", "auxiliary", "objective", "optimizer", "average")
    used = {(name, getattr(recipe, name).name) for name in alone}
    numbers = ("clip", recipe.clip_norm is not None), ("accumulate", recipe.accumulate > 1)
    return {("system", recipe.neuron.name, kind), ("amp", recipe.amp), *used, *numbers}


def distinct() -> Iterator[str]:
    """Names of recipes that together have all parts of all, full size: shapes cost nothing here."""
    seen: set[tuple[object, ...]] = set()
    for name in recipes.RECIPES:
        found = parts(recipes.get(name))
        if not found <= seen:
            seen |= found
            yield name


def why_not(recipe: Recipe) -> str:
    """Why a step of a recipe cannot be captured; "": it can."""
    step = make_step(recipe)
    try:
        return refusal(step) and (step() or refusal(step))  # the first run may build constants
    except RuntimeError as error:  # the host reads a value, of which a fake tensor has none
        return f"{type(error).__name__}: {error}"


def refusal(step: TrainingStep) -> str:
    """What `Strict` says to a step; "": nothing."""
    try:
        with Strict():
            step()
    except HostError as error:
        return str(error)
    return ""


NAMES = [*distinct()]


@pytest.mark.parametrize("name", NAMES)
def test_a_graph_can_hold_a_step_of_the_recipe(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_gpu(monkeypatch):
        assert why_not(recipes.get(name)) == EAGER.get(name, "")


def test_the_recipes_have_every_part() -> None:
    seen = set[tuple[object, ...]]().union(*(parts(recipes.get(name)) for name in NAMES))
    assert seen == set[tuple[object, ...]]().union(*map(parts, map(recipes.get, recipes.RECIPES)))
    assert EAGER.keys() <= set(NAMES)
    assert len(NAMES) > 20


READS: dict[str, Any] = {
    "a number": lambda x: x.sum().item(),
    "a branch": lambda x: bool(x.sum() > 0),
    "a size": lambda x: x[x > 0],
    "a list": lambda x: x[[0]],
    "a constant": lambda x: torch.tensor([1.0], device=x.device),
    "a copy from the host": lambda x: torch.zeros(3).to(x.device),
    "a copy to the host": lambda x: x.cpu(),
}


@pytest.mark.parametrize("what", READS)
def test_what_a_graph_cannot_hold_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LIF.forward

    def reading(neuron: LIF, x: Tensor, *args: Any, **options: Any) -> Any:
        READS[what](x)
        return forward(neuron, x, *args, **options)

    monkeypatch.setattr(LIF, "forward", reading)
    recipe = recipes.get("digits-rmp")
    with fake_gpu(monkeypatch):
        assert why_not(recipe)
        assert torch.ones(2, device=GPU).device == GPU
