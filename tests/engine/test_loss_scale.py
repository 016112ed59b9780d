"""Loss scaling in tensors follows `torch.amp.GradScaler` step by step."""

import pytest
import torch
from torch import nn

from rmploss.engine import loss_scale
from rmploss.engine.loss_scale import LossScale


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
