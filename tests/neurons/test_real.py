"""Real Spike: the height of the spikes and its gradient; threshold and reset do not see it."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rmploss import LIF, UserError, membrane_stats
from rmploss.neurons.real import RealSpike
from tests import lif_oracle as oracle
from tests.given import normal
from tests.lif_oracle import Neuron


def made(channels: int, per: str = "channel") -> RealSpike:
    """One in float64, with heights of both signs."""
    neuron = RealSpike(channels, per=per).double()  # pyright: ignore[reportArgumentType]
    assert neuron.amplitude is not None
    assert neuron.amplitude.eq(1).all()
    with torch.no_grad():
        neuron.amplitude.copy_(normal(*neuron.amplitude.shape, name="heights"))
    return neuron


@pytest.mark.parametrize("per", ["channel", "layer"])
@pytest.mark.parametrize("shape", [(4, 2, 3), (4, 2, 3, 5, 5)])
def test_it_scales_the_spikes_and_nothing_else(per: str, shape: tuple[int, ...]) -> None:
    x, neuron = normal(*shape, mean=0.3), made(3, per)
    assert neuron.amplitude is not None
    heights = neuron.amplitude.expand(3).view(-1, *[1] * (len(shape) - 3))
    with membrane_stats() as stats:
        y = neuron(x)
    with membrane_stats() as plain:
        o = LIF()(x)
    assert torch.equal(y, o * heights)
    assert 0 < o.mean() < 1
    assert torch.equal(stats.layers[0].moments, plain.layers[0].moments)
    assert torch.equal(neuron.membrane(x), LIF().membrane(x))


@pytest.mark.parametrize("per", ["channel", "layer"])
def test_the_gradient_of_the_heights_by_finite_differences(per: str) -> None:
    # The spikes of the layer do not depend on its heights, so they need no smooth stand-in.
    x, weight, neuron = normal(5, 2, 4, 3, mean=0.3), normal(5, 2, 4, 3, name="w"), made(4, per)
    heights = neuron.amplitude
    assert heights is not None
    (neuron(x).tanh() * weight).sum().backward()
    assert heights.grad is not None
    h = 1e-5  # error h^2 |f'''| / 6 + eps / h, about 1e-10
    for c in range(heights.numel()):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                heights[c] += sign * h
                values.append((neuron(x).tanh() * weight).sum().item())
                heights[c] -= sign * h
        assert heights.grad[c].item() == pytest.approx((values[0] - values[1]) / (2 * h), abs=1e-8)


def test_the_gradient_through_the_neurons_behind() -> None:
    # Two layers, K (a o1) between them; backward of the second by the oracle's recursion in NumPy.
    x, kernel = normal(5, 2, 4, 6, 6, mean=0.3), normal(3, 4, 3, 3, name="K", std=0.3)
    g, neuron = normal(5, 2, 3, 6, 6, name="g"), made(4)
    assert neuron.amplitude is not None
    first = neuron(x)
    current = F.conv2d(first.flatten(0, 1), kernel, padding=1).unflatten(0, (5, 2))
    (LIF()(current) * g).sum().backward()

    o = LIF()(x)
    trace = oracle.forward(current.detach().numpy(), np.zeros((2, 3, 6, 6)), Neuron())
    zero = np.zeros((4, 3)), np.zeros((2, 3, 6, 6))
    g_current, _ = oracle.backward(trace, Neuron(), g.numpy(), *zero)
    g_first = F.conv_transpose2d(torch.from_numpy(g_current).flatten(0, 1), kernel, padding=1)
    expected = (g_first.unflatten(0, (5, 2)) * o).sum((0, 1, 3, 4))
    assert expected.abs().min() > 0
    torch.testing.assert_close(neuron.amplitude.grad, expected, rtol=1e-11, atol=1e-11)


def test_released_spikes_are_binary() -> None:
    x, neuron = normal(4, 2, 3, mean=0.3), made(3)
    assert neuron.amplitude is not None
    heights = neuron.amplitude.detach().clone()
    released = neuron.release()
    assert released is not None
    assert torch.equal(released, heights)
    assert torch.equal(neuron(x), LIF()(x))
    assert not [*neuron.parameters()]
    assert neuron.release() is None  # nothing is left to take


def test_a_height_per_channel_needs_the_channels() -> None:
    with pytest.raises(UserError, match="needs the number of channels"):
        RealSpike()
    layer = RealSpike(per="layer")
    assert layer.amplitude is not None
    assert layer.amplitude.shape == (1,)
