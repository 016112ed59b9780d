"""The evolutionary surrogate of IM-Loss: its steepness over training, and its slope."""

import pytest
import torch

from rmploss import UserError
from rmploss.lifecycle import evolve
from rmploss.neurons.evolving import EvolvingLIF
from tests.given import normal


@pytest.mark.parametrize("progress", [0.0, 0.25, 0.5, 1.0])
def test_it_is_the_tanh_of_the_paper(progress: float) -> None:
    neuron = EvolvingLIF()
    evolve(torch.nn.Sequential(neuron), progress)
    surrogate = neuron.surrogate
    k = 10**progress  # K_min = 1, K_max = 10
    v = torch.linspace(-2, 2, 101, dtype=torch.float64)
    eps = torch.finfo(torch.float64).eps
    torch.testing.assert_close(
        surrogate.primitive(v), torch.tanh(k * v) / 2 + 0.5, rtol=0, atol=4 * eps
    )
    slope = k / 2 * (1 - torch.tanh(k * v).square())
    torch.testing.assert_close(surrogate.derivative(v), slope, rtol=0, atol=16 * k * eps)


def test_other_ends() -> None:
    neuron = EvolvingLIF(k_min=2, k_max=6)
    steepness = []
    for progress in (0.0, 0.5, 1.0):
        neuron.evolve(progress)
        steepness.append(neuron.surrogate.alpha / 2)  # pyright: ignore
    half = ((10**0.5 - 1) * 6 + (10 - 10**0.5) * 2) / 9
    assert steepness == pytest.approx([2, half, 6], rel=1e-12)
    with pytest.raises(UserError, match="k_min <= k_max"):
        EvolvingLIF(k_min=3, k_max=2)


def test_only_the_gradient_changes() -> None:
    x = normal(4, 2, 3, 5, mean=0.3).requires_grad_()
    neuron = EvolvingLIF(3)
    before = neuron(x)
    (shallow,) = torch.autograd.grad(before.sum(), x)
    neuron.evolve(1.0)
    after = neuron(x)
    (steep,) = torch.autograd.grad(after.sum(), x)
    assert torch.equal(before, after)
    assert not torch.equal(shallow, steep)
