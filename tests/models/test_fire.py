"""A norm and its neurons run as one operation only where nobody could tell."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from rmploss import LIF, TDBatchNorm2d, checkpoint
from rmploss.models.layers import ConvNorm, conv3x3
from rmploss.ops import use_backend
from tests.given import normal


def layer() -> tuple[ConvNorm, LIF]:
    torch.manual_seed(0)
    return conv3x3(3, 32, TDBatchNorm2d), LIF()


class Louder(TDBatchNorm2d):
    """A norm with a forward of its own."""

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        return super().forward(x, repeats) + 5


class Odd(LIF):
    """A neuron with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return x.sign()


def test_one_operation_or_two_give_the_same() -> None:
    x = normal(1, 2, 3, 6, 6).float()
    r = (normal(4, 2, 32, 6, 6, name="r") > 1).float()
    results = []
    for hook in (False, True):
        stage, neuron = layer()
        if hook:
            assert stage.norm is not None
            stage.norm.register_forward_hook(lambda module, inputs, output: None)
        spikes = stage.fire(x, neuron, residual=r, repeats=4)
        spikes.sum().backward()
        assert isinstance(stage.norm, TDBatchNorm2d)
        results.append((spikes, stage.norm.running_var, stage.conv.weight.grad))
    assert torch.equal(results[0][0], results[1][0])
    torch.testing.assert_close(results[0][1], results[1][1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(results[0][2], results[1][2], rtol=1e-3, atol=1e-3)


HOOKS: dict[str, Callable[[nn.Module, list[Any]], Any]] = {
    "forward": lambda m, seen: m.register_forward_hook(lambda *a: seen.append(1)),
    "forward pre": lambda m, seen: m.register_forward_pre_hook(lambda *a: seen.append(1)),
    "backward": lambda m, seen: m.register_full_backward_hook(lambda *a: seen.append(1)),
    "backward pre": lambda m, seen: m.register_full_backward_pre_hook(lambda *a: seen.append(1)),
}


@pytest.mark.parametrize("hook", HOOKS.values(), ids=HOOKS)
@pytest.mark.parametrize("on", ["norm", "neuron"])
def test_hooks_see_what_they_always_saw(hook: Callable[..., Any], on: str) -> None:
    stage, neuron = layer()
    seen: list[Any] = []
    target = stage.norm if on == "norm" else neuron
    assert target is not None
    hook(target, seen)
    x = normal(2, 2, 3, 6, 6).float().requires_grad_()
    stage.fire(x, neuron).sum().backward()
    assert seen == [1]


def test_a_forward_of_ones_own_runs() -> None:
    x = normal(2, 2, 3, 6, 6).float()
    stage, neuron = layer()
    plain = stage.fire(x, neuron).mean()
    stage.norm = Louder(32)
    assert stage.fire(x, neuron).mean() > plain
    assert set(stage.fire(x, Odd()).unique().tolist()) <= {-1.0, 0.0, 1.0}
    stage.norm = TDBatchNorm2d(32)
    stage.norm.forward = lambda x, repeats=1: torch.full_like(x, -5)
    assert not stage.fire(x, neuron).any()


def test_a_checkpoint_remembers_the_backend() -> None:
    neuron, norm = LIF(), TDBatchNorm2d(8)
    x = normal(4, 2, 8, 5, 5).float().requires_grad_()
    with use_backend("reference"):
        loss = checkpoint(lambda x: neuron(x, norm=norm), x).sum()
    loss.backward()
    assert x.grad is not None
