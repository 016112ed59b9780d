"""An optimizer's state by parameter name: a resumed optimizer steps bit for bit alike."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rmploss.engine.optimizer_state import OptimizerState, optimizer_state, restore_optimizer
from rmploss.errors import CheckpointError, UserError

Make = Callable[[Iterable[Any]], Optimizer]

OPTIMIZERS: dict[str, Make] = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.1),
    "SGD momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda p: torch.optim.Adam(p, lr=torch.tensor(0.01), amsgrad=True, foreach=False),
    "AdamW": lambda p: torch.optim.AdamW(p, lr=0.01, betas=(0.8, 0.95)),
    "Adamax": lambda p: torch.optim.Adamax(p, lr=0.01),
    "NAdam": lambda p: torch.optim.NAdam(p, lr=0.01),
    "RAdam": lambda p: torch.optim.RAdam(p, lr=0.01),
    "RMSprop": lambda p: torch.optim.RMSprop(p, lr=0.01, momentum=0.9, centered=True),
    "Rprop": lambda p: torch.optim.Rprop(p, lr=0.01),
    "Adagrad": lambda p: torch.optim.Adagrad(p, lr=0.01),
    "Adadelta": lambda p: torch.optim.Adadelta(p, lr=0.5),
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "ASGD": lambda p: torch.optim.ASGD(p, lr=0.01, t0=1),
}


class Small(nn.Module):
    """Two layers; `swapped` registers them, and their parameters, the other way round."""

    def __init__(self, swapped: bool = False, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        layers = {"first": nn.Linear(4, 6), "second": nn.Linear(6, 3)}
        for name in reversed(layers) if swapped else layers:
            self.add_module(name, layers[name].to(dtype))

    def forward(self, x: Tensor) -> Tensor:
        return self.get_submodule("second")(self.get_submodule("first")(x).relu())

    def groups(self) -> list[dict[str, Any]]:
        """The weights decay, the rest does not."""
        named = list(self.named_parameters())
        return [
            {"params": [p for name, p in named if p.ndim > 1], "weight_decay": 0.01},
            {"params": [p for name, p in named if p.ndim == 1], "weight_decay": 0.0},
        ]


def train(model: nn.Module, optimizer: Optimizer, steps: range) -> None:
    for step in steps:
        dtype = next(model.parameters()).dtype
        x = torch.randn(5, 4, generator=torch.Generator().manual_seed(step)).to(dtype)
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()


def through_json(state: OptimizerState) -> OptimizerState:
    """The state after a round trip through JSON, as from a checkpoint."""
    groups = tuple(json.loads(json.dumps(state.groups)))
    tensors = {name: tensor.clone() for name, tensor in state.tensors.items()}
    return OptimizerState(tensors, json.loads(json.dumps(state.numbers)), groups)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_resumed_is_unbroken(name: str, dtype: torch.dtype) -> None:
    model = Small(dtype=dtype)
    optimizer = OPTIMIZERS[name](model.groups())
    train(model, optimizer, range(3))
    state = through_json(optimizer_state(optimizer, model))

    resumed_model = Small(swapped=True, dtype=dtype)
    resumed_model.load_state_dict(model.state_dict())
    resumed = OPTIMIZERS[name](resumed_model.groups())
    for group in resumed.param_groups:
        group["lr"] *= 7  # Not the one that was saved.
    restore_optimizer(resumed, resumed_model, state)
    again = optimizer_state(resumed, resumed_model)
    assert again.tensors.keys() == state.tensors.keys()
    for key, tensor in state.tensors.items():
        assert again.tensors[key].dtype == tensor.dtype
        assert torch.equal(again.tensors[key], tensor)

    train(model, optimizer, range(3, 6))
    train(resumed_model, resumed, range(3, 6))
    for key, tensor in model.state_dict().items():
        assert torch.equal(resumed_model.state_dict()[key], tensor), key


def test_hyperparameters_keep_their_types() -> None:
    model = Small()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.8, 0.95), lr=torch.tensor(0.25))
    state = through_json(optimizer_state(optimizer, model))
    assert state.groups[0]["params"] == [name for name, _ in model.named_parameters()]
    fresh = torch.optim.AdamW(model.parameters(), lr=torch.tensor(1.0))
    restore_optimizer(fresh, model, state)
    assert fresh.param_groups[0]["betas"] == (0.8, 0.95)
    assert torch.equal(fresh.param_groups[0]["lr"], torch.tensor(0.25))


def test_numbers_are_kept_apart_from_tensors() -> None:
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    first = next(model.parameters())
    optimizer.state[first] = {"calls": 3, "mean": 0.1, "seen": True}
    state = through_json(optimizer_state(optimizer, model))
    assert state.numbers == {
        "first.weight/calls": 3,
        "first.weight/mean": 0.1,
        "first.weight/seen": True,
    }
    fresh = torch.optim.SGD(model.parameters(), lr=0.1)
    restore_optimizer(fresh, model, state)
    assert fresh.state[first] == optimizer.state[first]


def test_lbfgs_is_refused() -> None:
    model = Small()
    optimizer = torch.optim.LBFGS(model.parameters())

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = model(torch.ones(1, 4)).square().mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    with pytest.raises(UserError, match=r"first\.weight/old_dirs: is a list"):
        optimizer_state(optimizer, model)


def test_a_strange_parameter_is_refused() -> None:
    other = nn.Parameter(torch.zeros(2, 3))
    with pytest.raises(UserError, match=r"parameter 0: of shape \[2, 3\] is not the model's"):
        optimizer_state(torch.optim.SGD([other], lr=0.1), Small())


def test_another_grouping_is_refused() -> None:
    model = Small()
    state = optimizer_state(torch.optim.SGD(model.groups(), lr=0.1), model)
    whole = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(CheckpointError) as caught:
        restore_optimizer(whole, model, state)
    assert "first.bias: is in group 0 of the optimizer only" in str(caught.value)
    assert "first.bias: is in group 1 of the checkpoint only" in str(caught.value)
    ours = optimizer_state(whole, model)
    with pytest.raises(CheckpointError, match="belongs to another optimizer"):
        restore_optimizer(whole, model, replace(ours, groups=(*ours.groups, {"params": []})))
