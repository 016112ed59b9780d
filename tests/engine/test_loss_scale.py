"""Loss scaling in tensors follows `torch.amp.GradScaler` step by step."""

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


def test_a_step_that_overflows_is_not_averaged() -> None:
    """It leaves the weights as they were, which a second time in the average would be one vote."""
    recipe = TINY.but(amp="fp16", average=use("ema", decay=0.5))
    dataset, world = make_dataset(recipe), World()
    net, objective = make_network(recipe, dataset).train(), make_objective(recipe)
    state = TrainingState(recipe, net, world)
    state.rate.fill_(0.1)
    state.average = make_average(recipe, net, 4)
    assert state.average is not None
    assert state.scale is not None
    batch = normal(8, *dataset.shape(recipe.T)).float(), labels(8, 10)
    step = TrainingStep(recipe, net, make_loss(recipe), objective, state, world, lambda: batch)
    step()
    before = {name: tensor.clone() for name, tensor in state.average.tensors().items()}
    state.scale.scale.fill_(2.0**127)
    step()
    assert state.scale.scale == 2.0**126  # it has overflowed
    assert not state.tally.stopped()
    for name, tensor in state.average.tensors().items():
        if name == "count" or tensor.is_floating_point():
            assert torch.equal(tensor, before[name]), name
    state.scale.scale.fill_(1.0)
    step()
    assert state.average.tensors()["count"] == 2
