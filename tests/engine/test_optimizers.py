"""Optimizers and learning rates by their formulas."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from rmploss.engine.optimizer_state import optimizer_state, restore_optimizer
from rmploss.engine.optimizers import (
    OPTIMIZERS,
    WARM_UP,
    Position,
    groups_of,
    learning_rate,
    prepare,
)
from rmploss.errors import UserError
from rmploss.recipes import Use, use
from tests.given import normal


def rates(schedule: Use, epochs: int, batches: int) -> list[float]:
    return [
        learning_rate(0.1, schedule, Position(epoch, epochs, batch, batches))
        for epoch in range(epochs)
        for batch in range(batches)
    ]


def test_cosine_falls_to_zero_once_per_epoch() -> None:
    found = rates(use("cosine"), epochs=400, batches=3)
    assert found[:3] == [0.1] * 3  # the whole first epoch at the peak
    assert found[::3] == found[1::3] == found[2::3]
    assert found[600] == pytest.approx(0.05, rel=1e-12)  # half way
    assert found == sorted(found, reverse=True)
    # torch's own schedule, stepped once per epoch, as in the authors' family of code
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=400)
    for epoch in range(400):
        assert found[3 * epoch] == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9)
        optimizer.step()
        theirs.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_cosine_swings_with_its_period() -> None:
    found = rates(use("cosine", period=64), epochs=200, batches=2)[::2]
    assert found[64] == pytest.approx(0, abs=1e-12)
    assert found[128] == pytest.approx(0.1, rel=1e-12)
    # torch's own schedule, stepped once per epoch without an end, as in PLIF's code
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=64)
    for rate in found:
        assert rate == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-12)
        optimizer.step()
        theirs.step()


def test_a_warm_up_counts_steps_over_the_ends_of_epochs() -> None:
    plain = rates(use("cosine"), epochs=4, batches=3)
    found = rates(use("cosine", warm_up=5), epochs=4, batches=3)
    shares = [1 / 5, 2 / 5, 3 / 5, 4 / 5, *[1.0] * 8]
    assert found == pytest.approx([s * r for s, r in zip(shares, plain, strict=True)], rel=1e-12)
    assert rates(use("cosine", period=2, warm_up=4), 4, 1) == pytest.approx(
        [0.1 / 4, 0.05 / 2, 0, 0.05], abs=1e-15
    )


def test_stairs_fall_every_so_many_epochs() -> None:
    found = rates(use("stairs", every=3, factor=0.5), epochs=8, batches=2)[::2]
    assert found == pytest.approx([0.1] * 3 + [0.05] * 3 + [0.025] * 2, rel=1e-12)
    assert rates(use("stairs"), 36, 1)[34:] == pytest.approx([0.1, 0.01], rel=1e-12)
    assert rates(use("constant"), 3, 2) == [0.1] * 6


def test_onecycle_rises_over_a_third_and_falls_to_zero() -> None:
    found = rates(use("onecycle"), epochs=10, batches=10)
    top = round(100 * WARM_UP)
    assert found[0] == pytest.approx(0.1 / 25, rel=1e-12)
    assert found[top] == pytest.approx(0.1, rel=1e-12)
    assert found[top // 2] == pytest.approx((0.1 / 25 + 0.1) / 2, rel=1e-12)
    assert found[: top + 1] == sorted(found[: top + 1])
    assert found[top:] == sorted(found[top:], reverse=True)
    assert found[-1] == pytest.approx(0.1 * (1 - math.cos(math.pi / 70)) / 2, rel=1e-9)


def test_onecycle_with_the_options_of_the_fast_recipes() -> None:
    options = {"warm_up": 0.2, "initial": 0.0, "rise": "linear"}
    found = rates(use("onecycle", **options), epochs=5, batches=4)
    # The GPU prototype: lr done / .2 up to a fifth of the steps, then half a cosine to 0.
    done = [step / 20 for step in range(20)]
    expected = [
        0.1 * (d / 0.2 if d < 0.2 else (1 + math.cos(math.pi * (d - 0.2) / 0.8)) / 2) for d in done
    ]
    assert found == pytest.approx(expected, rel=1e-12)
    above = rates(use("onecycle", warm_up=0.0, final=0.5), epochs=5, batches=4)
    assert above[0] == 0.1
    assert above[10] == pytest.approx(0.075, rel=1e-12)
    assert min(above) > 0.05


def test_onecycle_refuses_shares_that_are_none() -> None:
    with pytest.raises(UserError) as caught:
        rates(use("onecycle", warm_up=1.0, initial=-0.1, final=2.0), 1, 1)
    assert [p.where for p in caught.value.problems] == [
        "initial = -0.1", "final = 2.0", "warm_up = 1.0"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("schedule", "wrong"),
    [
        (use("cosine", period=0, warm_up=-3), ["period = 0", "warm_up = -3"]),
        (use("cosine", period=-1), ["period = -1"]),
        (use("stairs", every=0, factor=-1.0), ["every = 0", "factor = -1.0"]),
        (use("stairs", factor=1e30), ["factor = 1e+30"]),
    ],
)
def test_no_schedule_climbs_the_loss(schedule: Use, wrong: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        rates(schedule, 1, 1)
    assert [p.where for p in caught.value.problems] == wrong


def test_one_epoch_of_one_step_is_no_special_case() -> None:
    assert rates(use("cosine"), 1, 1) == [0.1]
    assert rates(use("onecycle"), 1, 1) == [pytest.approx(0.1 / 25)]


def test_sgd_is_momentum_and_weight_decay_by_the_book() -> None:
    p = nn.Parameter(normal(3))
    expected, velocity = p.detach().clone(), torch.zeros(3).double()
    optimizer = OPTIMIZERS.make("sgd", [{"params": [p], "weight_decay": 0.1}], momentum=0.9)
    for step, rate in enumerate((0.5, 0.25, 0.125)):
        p.grad = normal(3, seed=step)
        velocity = 0.9 * velocity + p.grad + 0.1 * expected
        expected = expected - rate * velocity
        optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
        torch.testing.assert_close(p.detach(), expected, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_the_first_step_of_adam_has_the_size_of_the_rate(name: str) -> None:
    p = nn.Parameter(torch.zeros(3).double())
    optimizer = OPTIMIZERS.make(name, [{"params": [p], "weight_decay": 0.0}])
    optimizer.param_groups[0]["lr"] = 0.01
    p.grad = torch.tensor([1e-3, -5.0, 2.0]).double()
    optimizer.step()
    torch.testing.assert_close(p.detach(), -0.01 * p.grad.sign(), rtol=1e-4, atol=0)


def test_decay_on_all_parameters_is_one_group() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
    (group,) = groups_of(net, 1e-4, "all")
    assert group["weight_decay"] == 1e-4
    assert len(group["params"]) == 4


PLAIN: dict[str, Any] = {
    "sgd": lambda p: torch.optim.SGD(p, momentum=0.9, nesterov=True, weight_decay=0.1, lr=0.5),
    "adam": lambda p: torch.optim.Adam(p, amsgrad=True, weight_decay=0.1, lr=0.5),
    "adamw": lambda p: torch.optim.AdamW(p, weight_decay=0.1, lr=0.5),
}
OPTIONS: dict[str, dict[str, Any]] = {"sgd": {"nesterov": True}, "adam": {"amsgrad": True}}


def prepared(name: str, parameter: nn.Parameter) -> torch.optim.Optimizer:
    """The optimizer as the engine has it, with a rate in a tensor."""
    groups = [{"params": [parameter], "weight_decay": 0.1}]
    optimizer = OPTIMIZERS.make(name, groups, **OPTIONS.get(name, {}))
    prepare(optimizer, torch.tensor(0.5, dtype=torch.float64))
    return optimizer


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("skipped", [None, 0, 2])
def test_a_fused_step_is_the_plain_one_and_a_skipped_one_is_none(
    name: str, skipped: int | None
) -> None:
    ours, theirs = nn.Parameter(normal(4, 3)), nn.Parameter(normal(4, 3))
    optimizer: Any = prepared(name, ours)
    plain = PLAIN[name]([theirs])
    for step in range(4):
        skip = step == skipped
        ours.grad = normal(4, 3, seed=step) * (math.nan if skip else 1)
        optimizer.found_inf = torch.tensor(float(skip))
        optimizer.step()
        if not skip:
            theirs.grad = normal(4, 3, seed=step)
            plain.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-15)
    assert set(optimizer.state[ours]) == set(plain.state[theirs])
    for key, value in plain.state[theirs].items():
        torch.testing.assert_close(optimizer.state[ours][key], value, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("name", PLAIN)
def test_state_has_the_layout_of_its_parameter(name: str) -> None:
    """The fused kernels of the CPU take elements by their place in memory, whatever the strides."""
    weight, gradient = normal(4, 2, 3, 3), normal(4, 2, 3, 3, seed=1)
    ours = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    theirs = nn.Parameter(weight.clone())
    optimizer, plain = prepared(name, ours), PLAIN[name]([theirs])
    for step in range(2):
        if step == 1:  # as a checkpoint restores it
            for key, value in optimizer.state[ours].items():
                optimizer.state[ours][key] = value.contiguous()
            prepare(optimizer, optimizer.param_groups[0]["lr"])
        (ours * gradient).sum().backward()
        theirs.grad = gradient.clone()
        optimizer.step()
        plain.step()
        ours.grad = None
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-15)


def test_kernels_of_an_update_are_not_restored_with_it() -> None:
    """A run from before fused optimizers goes on with them."""
    net = nn.Linear(2, 2)
    saved = optimizer_state(torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9), net)
    optimizer = OPTIMIZERS.make("sgd", groups_of(net, 0.0, "all"))
    restore_optimizer(optimizer, net, saved)
    (group,) = optimizer.param_groups
    assert (group["fused"], group["foreach"]) == (True, None)
