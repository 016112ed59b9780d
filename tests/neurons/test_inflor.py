"""InfLoR against the released code's steps, literally: the redistribution moves no spike."""

import math

import torch
from torch import Tensor

from rmploss.neurons.inflor import InfLoR
from tests.given import normal


class Clamp(torch.autograd.Function):
    """Fire at 1/2; backward is that of a clamp to [0, 1]."""

    @staticmethod
    def forward(ctx, v: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(v)
        return (v >= 0.5).to(v.dtype)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:  # pyright: ignore
        (v,) = ctx.saved_tensors
        return gradients[0] * ((v >= 0) & (v <= 1))


def redistribute(u: Tensor) -> Tensor:
    """phi(u): a cube root below 0 and above 1, the tanh of Eq. 5 in between; any shape."""
    inner = torch.tanh(3 * (u - 0.5)) / (2 * math.tanh(1.5)) + 0.5
    below = 1 - (1 - u.clamp(max=0)).pow(1 / 3)
    above = u.clamp(min=1).pow(1 / 3)
    return torch.where(u < 0, below, torch.where(u > 1, above, inner))


def literally(x: Tensor) -> Tensor:
    """u = u + x; v = phi(u); o = 1[v >= 1/2]; u = u - o, step by step."""
    u, spikes = torch.zeros_like(x[0]), []
    for x_t in x:
        u = u + x_t
        o = Clamp.apply(redistribute(u))
        u = u - o
        spikes.append(o)
    return torch.stack(spikes)


def test_it_is_the_released_code_forward_and_backward() -> None:
    x = normal(6, 3, 5, 7, mean=0.3).requires_grad_()
    g = normal(*x.shape, name="g")
    spikes, expected = InfLoR(5)(x), literally(x)
    assert torch.equal(spikes, expected)
    assert 0.1 < spikes.mean() < 0.9
    (found,) = torch.autograd.grad((spikes * g).sum(), x)
    (wanted,) = torch.autograd.grad((expected * g).sum(), x)
    # A chain of six steps of a few roundings each; no slope is above 1.66.
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-13 * float(wanted.abs().max()))


def test_the_redistribution_is_monotone_and_keeps_the_threshold() -> None:
    u = torch.linspace(-3, 4, 7001, dtype=torch.float64)
    phi = redistribute(u)
    assert (phi.diff() > 0).all()
    assert torch.equal(phi >= 0.5, u >= 0.5)
    at = torch.tensor([0.0, 0.5, 1.0, 8.0, -7.0], dtype=torch.float64)
    expected = torch.tensor([0.0, 0.5, 1.0, 2.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(redistribute(at), expected, rtol=0, atol=1e-15)
    inner = (redistribute(torch.tensor(0.5 + 1e-6)) - 0.5) / 1e-6
    assert math.isclose(float(inner), 3 / (2 * math.tanh(1.5)), rel_tol=0.1)


def test_the_state_is_the_signed_error_that_is_left() -> None:
    x = torch.tensor([0.6, 0.1, 0.9, 0.0], dtype=torch.float64).view(4, 1, 1)
    neuron = InfLoR(carry_state=True)
    left = []
    for x_t in x:
        neuron.step(x_t)
        assert neuron.u is not None
        left.append(neuron.u.item())
    # 0.6 fires and leaves -0.4; -0.3; 0.6 fires: -0.4; -0.4
    torch.testing.assert_close(torch.tensor(left), torch.tensor([-0.4, -0.3, -0.4, -0.4]))
