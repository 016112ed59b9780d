"""The analog layer of an ANN: what it gives, and what it records."""

import torch

from rmploss import membrane_stats
from rmploss.neurons import SpikingLayer
from rmploss.neurons.relu import ReLU
from rmploss.ops.lif.moments import ERROR, MEMBRANE, SPIKES, SQUARE
from tests.given import normal


def test_it_is_rectified_and_recorded_without_a_graph() -> None:
    x = normal(2, 3, 4, 5, 5).requires_grad_()
    layer = ReLU(4)
    assert isinstance(layer, SpikingLayer)
    assert layer.unregularized
    with membrane_stats() as stats:
        y = layer(x)
    assert torch.equal(y, x.clamp(min=0))
    (entry,) = stats
    assert not entry.moments.requires_grad
    assert entry.count == 2 * 3 * 25
    want = {MEMBRANE: x, SQUARE: x.square(), ERROR: x.clamp(max=0).square(), SPIKES: y}
    for row, values in want.items():
        torch.testing.assert_close(entry.moments[row], values.detach().sum((0, 1, 3, 4)))
    y.sum().backward()
    assert x.grad is not None
    assert torch.equal(x.grad, (x > 0).double())
    assert torch.equal(layer.membrane(x), x.detach())
