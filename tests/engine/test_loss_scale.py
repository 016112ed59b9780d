"""Loss scaling in tensors follows `torch.amp.GradScaler` step by step."""

import math

import pytest
import torch
from torch import nn

from rmploss.engine import loss_scale
from rmploss.engine.build import (
    make_average,
    make_dataset,
    make_loss,
    make_network,
    make_objective,
)
from rmploss.engine.distributed import World
from rmploss.engine.loss_scale import LossScale
from rmploss.engine.step import TrainingStep
from rmploss.engine.training_state import TrainingState
from rmploss.recipes import use
from tests.engine.runs import TINY
from tests.given import labels, normal


@pytest.mark.parametrize("first", [2.0**16, 2.0**127, 2.0**-126])
def test_the_scale_is_that_of_torch(first: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Overflows, growth after an interval, and both ends of float32."""
    monkeypatch.setattr(loss_scale, "INTERVAL", 3)
    theirs = torch.amp.GradScaler("cpu", init_scale=first, growth_interval=3)
    parameter = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=0.0)
    ours = LossScale(torch.device("cpu"))
    ours.scale.fill_(first)
    theirs.scale(torch.zeros(()))  # creates its state
    for step in range(24):
        overflow = step in (0, 4, 5, 12)
        parameter.grad = torch.tensor([float("inf") if overflow else 1.0, 0.5]) * theirs.get_scale()
        gradient = parameter.grad.clone()
        theirs.unscale_(optimizer)
        ours.unscale([gradient])
        assert torch.equal(gradient, parameter.grad)
        theirs.step(optimizer)
        theirs.update()
        ours.update(torch.tensor(overflow))
        assert ours.scale.item() == theirs.get_scale()
        assert ours.state_dict() == theirs.state_dict()
    again = LossScale(torch.device("cpu"))
    again.load_state_dict(theirs.state_dict())
    assert again.state_dict() == ours.state_dict()


def test_only_above_one_an_overflow_is_no_error() -> None:
    scale = LossScale(torch.device("cpu"))
    assert scale.probing()
    scale.scale.fill_(1.0)
    assert not scale.probing()


def make_step() -> TrainingStep:
    """A step in fp16 with an average of the weights."""
    recipe = TINY.but(amp="fp16", average=use("ema", decay=0.5))
    dataset, world = make_dataset(recipe), World()
    net, objective = make_network(recipe, dataset).train(), make_objective(recipe)
    state = TrainingState(recipe, net, world)
    state.rate.fill_(0.1)
    state.average = make_average(recipe, net, 4)
    batch = normal(8, *dataset.shape(recipe.T)).float(), labels(8, 10)
    return TrainingStep(recipe, net, make_loss(recipe), objective, state, world, lambda: batch)


def overflow(step: TrainingStep) -> None:
    """Run a step whose gradients overflow, and whose loss is finite."""
    assert step.state.scale is not None
    step.state.scale.scale.fill_(2.0**127)
    step()
    assert step.state.scale.scale == 2.0**126
    assert not step.state.tally.stopped()


def test_a_step_that_overflows_is_not_averaged() -> None:
    """It leaves the weights as they were, which a second time in the average would be one vote."""
    step = make_step()
    average, scale = step.state.average, step.state.scale
    assert average is not None
    assert scale is not None
    step()
    before = {name: tensor.clone() for name, tensor in average.tensors().items()}
    overflow(step)
    for name, tensor in average.tensors().items():
        assert torch.equal(tensor, before[name]), name
    scale.scale.fill_(1.0)
    step()
    assert average.tensors()["count"] == 2


@pytest.mark.parametrize("bad", [0.0, math.inf, math.nan])
def test_statistics_of_an_overflow_are_kept_while_they_are_finite(bad: float) -> None:
    """As with `torch.amp.GradScaler`, but what is not finite would never leave them."""
    step = make_step()
    statistics = {
        name: x for name, x in step.state.net.named_buffers() if name.endswith("running_var")
    }
    last = [*statistics.values()][-1]

    def spoil(*_: object) -> None:
        last.add_(bad)

    step.state.net.register_forward_hook(spoil)
    before = {name: x.clone() for name, x in statistics.items()}
    overflow(step)
    for name, x in statistics.items():
        assert torch.equal(x, before[name]) == (bad != 0), name
