"""`rmp_loss` of tensors: Eqs. 8-10 by finite sums, their gradient, and mistakes."""

import pytest
import torch
from torch import Tensor

from rmploss import LIF, RMPLoss, UserError, functional, membrane_stats, rmp_loss
from rmploss.surrogate import ClippedTanh
from tests.given import normal

SHAPE = (4, 2, 3, 5)


def over_time(x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """The paper's neuron, written by somebody as a loop: membranes and spikes of every step."""
    fire, u, membranes, spikes = ClippedTanh(), torch.zeros_like(x[0]), [], []
    for x_t in x:
        u_pre = 0.25 * u + x_t
        o = fire(u_pre - 0.5)
        u = u_pre * (1 - o)
        membranes.append(u_pre)
        spikes.append(o)
    return membranes, spikes


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0])
def test_it_is_the_loss_of_the_layer_value_and_gradient(p: float) -> None:
    x = normal(*SHAPE, mean=0.4).requires_grad_()
    rmp, layer = RMPLoss(p=p), LIF(3)
    with membrane_stats(layer, rmp.spec) as stats:
        layer(x)
    expected = rmp.value(stats)
    u, o = over_time(x)
    for given in ((u, o), (torch.stack(u), torch.stack(o)), (torch.stack(u), o)):
        loss = rmp_loss(*given, p=p)
        torch.testing.assert_close(loss, expected, rtol=1e-13, atol=0)
        (found,) = torch.autograd.grad(loss, x, retain_graph=True)
        (wanted,) = torch.autograd.grad(expected, x, retain_graph=True)
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("threshold", [1.0, 0.3, torch.tensor([0.5, 1.0, 2.0]).double()[:, None]])
def test_it_does_not_depend_on_the_unit_of_the_membrane(threshold: float | Tensor) -> None:
    u, o = over_time(normal(*SHAPE, mean=0.4).requires_grad_())
    membrane = torch.stack(u)
    expected = rmp_loss(membrane, o)
    found = rmp_loss(membrane * 2 * threshold, o, v_threshold=threshold)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=0)


def test_the_target_is_a_constant_unless_asked() -> None:
    u, o = over_time(normal(*SHAPE, mean=0.4).requires_grad_())
    spikes = torch.stack(o)
    assert torch.autograd.grad(rmp_loss(u, spikes), spikes, allow_unused=True) == (None,)
    (found,) = torch.autograd.grad(rmp_loss(u, spikes, detach_target=False), spikes)
    torch.testing.assert_close(found, 2 * (spikes - torch.stack(u)) / spikes.numel())


def test_a_learnt_threshold_gets_its_gradient() -> None:
    u, o = over_time(normal(*SHAPE, mean=0.4).requires_grad_())
    threshold = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda v: rmp_loss(u, o, v_threshold=v), threshold)


def test_half_precision_is_measured_in_single() -> None:
    u, o = over_time(normal(*SHAPE, mean=0.4).requires_grad_())
    loss = rmp_loss([step.half() for step in u], [step.half() for step in o])
    assert loss.dtype == torch.float32


def test_mistakes_are_told_together() -> None:
    u, o = normal(*SHAPE), torch.ones(2, 3)
    with pytest.raises(UserError) as caught:
        rmp_loss(u, o, p=0.0, v_threshold=-1.0)
    lines = str(caught.value).split("\n")
    assert [line.partition(":")[0].strip() for line in lines[1:]] == [
        "p = 0.0",
        "v_threshold = -1.0",
        "spikes",
        "u_pre",
    ]


@pytest.mark.parametrize(
    ("u", "o", "message"),
    [
        ([], [], "u_pre: is no tensor, and no list of tensors"),
        ([torch.ones(2), torch.ones(3)], torch.ones(2), "several shapes"),
        (torch.ones(2, requires_grad=True), torch.ones(2).bool(), "spikes: is torch.bool"),
        (torch.ones(2), torch.ones(2), "u_pre: has no gradient"),
        (torch.ones(2, requires_grad=True), torch.ones(3), r"has shape \[3\], u_pre \[2\]"),
        (3, torch.ones(2), "u_pre: is no tensor"),
    ],
)
def test_a_mistake_is_named(u: Tensor, o: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        rmp_loss(u, o)


@pytest.mark.parametrize("threshold", [torch.ones(2), torch.ones(3, 1).int(), torch.ones(2, 3, 2)])
def test_a_threshold_that_does_not_broadcast_is_named(threshold: Tensor) -> None:
    u = torch.ones(2, 3, 1, requires_grad=True)
    with pytest.raises(UserError, match="v_threshold: is torch"):
        rmp_loss(u, u.detach(), v_threshold=threshold)


def test_without_gradient_it_can_be_looked_at() -> None:
    u, o = functional.membrane(normal(*SHAPE), channels=3), torch.zeros(SHAPE)
    with torch.no_grad():
        assert rmp_loss(u, o) > 0
