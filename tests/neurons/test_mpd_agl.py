"""MPD-AGL: the width of the surrogate against tdBN's gain, and when it changes."""

import copy
import math

import pytest
import torch

from rmploss.engine.build import make_dataset, make_network
from rmploss.errors import UserError
from rmploss.lifecycle import evolve
from rmploss.neurons.lif import LIF
from rmploss.neurons.mpd_agl import AdaptiveWidthLIF
from rmploss.norm import TDBatchNorm2d
from rmploss.recipes import RECIPES
from rmploss.surrogate import Rectangle
from tests.given import normal

X = (3, 2, 4, 5, 5)


def trained(gains: list[float], decay: float = 0.25) -> AdaptiveWidthLIF:
    """A neuron after a training step behind a norm with these gains, in the next epoch."""
    neuron, norm = AdaptiveWidthLIF(4, decay=decay), TDBatchNorm2d(4, v_threshold=0.5)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor(gains))
    neuron(normal(*X).float(), norm=norm)
    evolve(neuron, 0.5)
    return neuron


def test_the_width_is_two_deviations_of_the_membrane() -> None:
    neuron = trained([1.0, 2.0, 3.0, -2.0], decay=0.5)
    k = 2 * math.sqrt(1 + 0.5**2) * 2.0 * 0.5
    assert neuron.surrogate.width == pytest.approx(k, rel=1e-15)  # pyright: ignore
    at_start = AdaptiveWidthLIF(4, decay=0.5).surrogate
    assert at_start.width == pytest.approx(k / 2, rel=1e-15)  # pyright: ignore


def test_the_networks_hand_their_norms_over() -> None:
    """The neurons of a recipe's network follow the gains that training gives its norms."""
    recipe = RECIPES["fair-mpd_agl-pocket"]
    net = make_network(recipe, make_dataset(recipe)).train()
    evolve(net, 0.25)
    with torch.no_grad():
        for norm in (m for m in net.modules() if isinstance(m, TDBatchNorm2d)):
            norm.weight.fill_(3.0)
    net(normal(2, 3, 32, 32).float())
    neurons = [m for m in net.modules() if isinstance(m, AdaptiveWidthLIF)]
    k = 2 * math.sqrt(1 + 0.25**2) * 0.5
    for progress, gain in ((0.25, 1), (0.5, 3)):
        evolve(net, progress)
        widths = [n.surrogate.width for n in neurons]  # pyright: ignore
        assert widths == pytest.approx([gain * k] * len(neurons), rel=1e-6)
    assert len(neurons) > 10


def test_the_first_epoch_has_the_width_of_a_new_norm() -> None:
    neuron, norm = AdaptiveWidthLIF(4), TDBatchNorm2d(4, alpha=1.5)
    evolve(neuron, 0.25)
    neuron(normal(*X).float(), norm=norm)
    assert neuron.surrogate.width == neuron.width_of(1.5 * 0.5)  # pyright: ignore


def test_an_epoch_without_a_norm_is_an_error() -> None:
    neuron = AdaptiveWidthLIF(4)
    evolve(neuron, 0.25)
    neuron(normal(*X).float())
    with pytest.raises(UserError, match="nothing to follow"):
        evolve(neuron, 0.5)


def test_it_is_the_rectangle_of_that_width() -> None:
    neuron = trained([0.5] * 4)
    width = neuron.surrogate.width  # pyright: ignore
    x = normal(3, 2, 4, 6, mean=0.3).requires_grad_()
    other = LIF(4, surrogate=Rectangle(width=width))
    expected, found = (torch.autograd.grad(n(x).square().sum(), x)[0] for n in (other, neuron))
    assert torch.equal(neuron(x), other(x))
    assert torch.equal(expected, found)
    assert expected.any()


def test_a_gain_of_zero_leaves_a_surrogate() -> None:
    assert trained([0.0] * 4).surrogate.width > 0  # pyright: ignore


def test_evaluation_remembers_nothing() -> None:
    neuron, norm = AdaptiveWidthLIF(4).eval(), TDBatchNorm2d(4).eval()
    with torch.no_grad():
        norm.weight.fill_(7.0)
    neuron(normal(*X).float(), norm=norm)
    assert float(neuron.norm_gain) == 0.5


def test_a_run_that_is_resumed_within_an_epoch_keeps_the_width() -> None:
    neuron, norm = trained([1.0] * 4), TDBatchNorm2d(4)
    before = neuron.surrogate
    with torch.no_grad():
        norm.weight.fill_(2.0)
    neuron(normal(*X).float(), norm=norm)  # a step later in the same epoch
    resumed = AdaptiveWidthLIF(4)
    resumed.load_state_dict(copy.deepcopy(neuron.state_dict()))
    evolve(resumed, 0.5)
    assert resumed.surrogate == before
    for n in (neuron, resumed):
        evolve(n, 1.0)
    assert neuron.surrogate == resumed.surrogate != before
