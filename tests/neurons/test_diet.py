"""Diet-SNN's neuron against its recursion, written out with membrane, threshold and leak."""

import pytest
import torch
from torch import Tensor

from rmploss import TDBatchNorm2d, UserError, membrane_stats
from rmploss.lifecycle import constrain
from rmploss.neurons.diet import Diet
from rmploss.ops.lif.moments import MEMBRANE, SPIKES
from tests.given import normal

BACKENDS = ["auto", "reference"]


class Tent(torch.autograd.Function):
    """1[z >= 0], with the slope 0.3 max(0, 1 - |z|)."""

    @staticmethod
    def forward(ctx, z: Tensor) -> Tensor:  # pyright: ignore
        ctx.save_for_backward(z)
        return (z >= 0).to(z.dtype)

    @staticmethod
    def backward(ctx, *gradients: Tensor) -> Tensor:  # pyright: ignore
        (z,) = ctx.saved_tensors
        return gradients[0] * 0.3 * torch.clamp(1 - z.abs(), min=0)


def literally(x: Tensor, leak: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Spikes and m before the reset: m = l m + x; z = m / v - 1; o = 1[z >= 0]; m = m - v o."""
    m, spikes, membranes = torch.zeros_like(x[0]), [], []
    for x_t in x:
        m = leak * m + x_t
        membranes.append(m)
        z = m / v - 1
        spikes.append(Tent.apply(z))
        m = m - v * (z >= 0)
    return torch.stack(spikes), torch.stack(membranes)


def close(got: Tensor, want: Tensor) -> None:
    """Equal up to rounding: a chain of six steps, sums over some hundred of them."""
    torch.testing.assert_close(got, want, rtol=0, atol=1e-13 * float(1 + want.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize(("leak", "threshold"), [(1.0, 1.0), (0.8, 1.3), (0.95, 0.4)])
def test_it_is_the_recursion_forward_and_backward(
    backend: str, leak: float, threshold: float
) -> None:
    x = (threshold * normal(6, 3, 5, 7, mean=0.4)).requires_grad_()
    g = normal(*x.shape, name="g")
    neuron = Diet(5, leak=leak, threshold=threshold).double()
    spikes = neuron(x)
    expected, m = literally(x, neuron.leak, neuron.threshold)
    assert torch.equal(spikes, expected)
    assert 0.2 < spikes.mean() < 0.8
    of = (x, neuron.leak, neuron.threshold)
    found = torch.autograd.grad((spikes * g).sum(), of)
    wanted = torch.autograd.grad((expected * g).sum(), of)
    for one, other in zip(found, wanted, strict=True):
        assert other.abs().max() > 0
        close(one, other)
    close(neuron.membrane(x), m.detach() / neuron.threshold.detach())


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("training", [True, False])
def test_with_a_norm_and_a_shortcut_in_one_operation(backend: str, training: bool) -> None:
    y, residual = normal(4, 3, 5, 4, 4).requires_grad_(), normal(4, 3, 5, 4, 4, name="shortcut")
    g = normal(*y.shape, name="g")
    neuron = Diet(leak=0.9, threshold=0.7).double()
    norm = TDBatchNorm2d(5, v_threshold=1.0).double().train(training)
    with torch.no_grad():
        norm.bias.copy_(normal(5, name="bias"))
        norm.running_mean.copy_(normal(5, name="mean"))
    residual.requires_grad_()
    spikes = neuron(y, norm=norm, residual=residual)
    expected, _ = literally(norm(y) + residual, neuron.leak, neuron.threshold)
    assert torch.equal(spikes, expected)
    of = (y, residual, norm.weight, norm.bias, neuron.leak, neuron.threshold)
    found = torch.autograd.grad((spikes * g).sum(), of)
    wanted = torch.autograd.grad((expected * g).sum(), of)
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12 * float(1 + other.abs().max()))


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_a_course_worked_out_by_hand(backend: str) -> None:
    # l = 1/2, v = 2:  m = 3 fires, 1 stays;  1.5;  1.25;  4.625 fires, 2.625 stays;  1.3125
    neuron = Diet(leak=0.5, threshold=2.0).double()
    x = torch.tensor([3, 1, 0.5, 4, 0], dtype=torch.float64).view(5, 1, 1)
    assert neuron(x).flatten().tolist() == [1, 0, 0, 1, 0]
    assert neuron.membrane(x).flatten().tolist() == [1.5, 0.75, 0.625, 2.3125, 0.65625]
    # One step: do/dv = 0.3 (1 - |m/v - 1|) (-m / v^2) = 0.3 (1/2) (-3/4); the leak has no part.
    neuron(x[:1]).sum().backward()
    assert neuron.threshold.grad is not None
    assert neuron.leak.grad is not None
    assert neuron.threshold.grad.item() == pytest.approx(-0.1125, abs=1e-16)
    assert neuron.leak.grad.item() == 0


def test_the_slope_has_its_support_between_0_and_2_v() -> None:
    v = 1.6
    x = torch.linspace(-1.05, 4.15, 53, dtype=torch.float64).view(1, 53, 1).requires_grad_()
    Diet(threshold=v).double()(x).sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad != 0, (x > 0) & (x < 2 * v))


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_its_moments_are_those_of_m_over_v(backend: str) -> None:
    x = normal(4, 2, 3, 5, mean=0.5)
    neuron = Diet(3, leak=0.9, threshold=0.7).double()
    with membrane_stats() as stats:
        spikes = neuron(x)
    _, m = literally(x, neuron.leak, neuron.threshold)
    (entry,) = stats
    wanted = (m / neuron.threshold).sum((0, 1, 3))
    close(entry.moments[MEMBRANE].detach(), wanted.detach())
    close(entry.moments[SPIKES].detach(), spikes.detach().sum((0, 1, 3)))
    of = (neuron.leak, neuron.threshold)
    found = torch.autograd.grad(entry.moments[MEMBRANE].sum(), of)
    for one, other in zip(found, torch.autograd.grad(wanted.sum(), of), strict=True):
        close(one, other)


def test_the_leak_stays_at_one_or_below() -> None:
    neuron = Diet()
    with torch.no_grad():
        neuron.leak.fill_(1.2)
        neuron.threshold.fill_(-3.0)
    constrain(neuron)
    assert (neuron.leak.item(), neuron.threshold.item()) == (1.0, -3.0)
    with torch.no_grad():
        neuron.leak.fill_(-0.5)  # no lower bound
    constrain(neuron)
    assert neuron.leak.item() == -0.5


def test_what_it_learns_is_told() -> None:
    assert repr(Diet(leak=0.5, threshold=2)) == "Diet(leak=0.5, threshold=2)"
    assert [name for name, _ in Diet(7).named_parameters()] == ["leak", "threshold"]
    for threshold in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(UserError, match=r"threshold = .* must be positive"):
            Diet(threshold=threshold)
    with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
        Diet(leak=1.5)
