"""The neuron modules: their constants, carried state, and single steps."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from rmploss import IF, LIF, RMPLoss, UserError, functional, membrane_stats
from rmploss.neurons import NEURONS, SpikingLayer
from rmploss.ops.lif.moments import MEMBRANE, SPIKES, SQUARE, MomentSpec
from rmploss.surrogate import Triangle
from tests import lif_oracle as oracle
from tests.given import normal
from tests.lif_oracle import Neuron

RESETS = [0.0, -0.2, None]


@pytest.mark.parametrize(
    ("decay", "v_threshold", "v_reset", "detach_reset"),
    [*itertools.product([0.0, 0.25, 1.0], [0.5, 0.3], RESETS, [True, False])],
)
def test_the_module_is_the_neuron_of_its_constants(
    decay: float, v_threshold: float, v_reset: float | None, detach_reset: bool
) -> None:
    x = normal(5, 2, 3, 4, mean=0.2).requires_grad_()
    upstream = normal(*x.shape, name="upstream")
    lif = LIF(3, decay=decay, v_threshold=v_threshold, v_reset=v_reset, detach_reset=detach_reset)
    spikes = lif(x)
    (gradient,) = torch.autograd.grad(spikes, x, upstream)

    neuron = Neuron(
        decay=decay, v_threshold=v_threshold, v_reset=v_reset, detach_reset=detach_reset
    )
    rest = np.full(x.shape[1:], v_reset or 0.0)
    trace = oracle.forward(x.detach().numpy(), rest, neuron)
    nothing = np.zeros((4, 3)), np.zeros(x.shape[1:])
    expected, _ = oracle.backward(trace, neuron, upstream.numpy(), *nothing)
    np.testing.assert_array_equal(spikes.detach().numpy(), trace.o)
    np.testing.assert_allclose(gradient.numpy(), expected, rtol=1e-12, atol=1e-13)


def test_it_fires_at_the_threshold_exactly() -> None:
    x = torch.tensor([0.5, np.nextafter(0.5, 0)], dtype=torch.float64).view(1, 1, 2)
    assert LIF()(x).flatten().tolist() == [1, 0]


def test_a_soft_reset_leaves_the_rest() -> None:
    x = normal(4, 2, 3, mean=0.8)
    lif = LIF(v_reset=None, v_threshold=1.0, carry_state=True)
    for x_t in x:
        before = torch.zeros(2, 3, dtype=torch.float64) if lif.u is None else lif.u
        o = lif.step(x_t)
        assert lif.u is not None
        # u = u_pre - o at a threshold of one
        torch.testing.assert_close(lif.u, 0.25 * before + x_t - o, rtol=0, atol=0)


def test_from_tau() -> None:
    lif = LIF.from_tau(4 / 3, v_threshold=1.0, detach_reset=True)
    assert lif.decay == pytest.approx(0.25, abs=1e-15)
    assert lif.v_threshold == 1.0
    assert lif.detach_reset
    assert LIF.from_tau(1).decay == 0
    for tau in (0.5, 0, -1, float("nan")):
        with pytest.raises(UserError, match=r"tau(?s:.*)must be >= 1"):
            LIF.from_tau(tau)


def test_integrate_and_fire_does_not_leak() -> None:
    x = torch.full((4, 1, 1), 0.2, dtype=torch.float64)
    assert IF()(x).flatten().tolist() == [0, 0, 1, 0]
    assert IF(v_reset=None)(x).flatten().tolist() == [0, 0, 1, 0]
    assert LIF()(x).flatten().tolist() == [0, 0, 0, 0]
    assert IF().decay == 1
    assert isinstance(IF(surrogate="triangle").surrogate, Triangle)


@pytest.mark.parametrize("name", [name for name in NEURONS if name != "relu"])
def test_a_neuron_fires_in_one_step_from_its_firing_current_on(name: str) -> None:
    options = NEURONS.options(name)
    changed: dict[str, Any] = {"threshold": 0.4} if "threshold" in options else {}
    changed |= {"tau": 3.0} if "tau" in options else {}
    neuron = NEURONS.make(name, 1, **changed)
    rates = []
    for factor in (0.999, 1.001):
        with torch.no_grad(), membrane_stats() as stats:
            neuron(torch.full((1, 1, 1, 1, 1), factor * neuron.firing_current()))
        rates += [layer.firing_rate.item() for layer in stats]
    assert rates == [0, 1]


CARRYING = [
    (name, reset)
    for name in NEURONS
    for reset in ([{"v_reset": v} for v in RESETS] if "v_reset" in NEURONS.options(name) else [{}])
    if "carry_state" in NEURONS.options(name) and (name, reset) != ("plif", {"v_reset": -0.2})
]


@pytest.mark.filterwarnings("ignore:carry_state=True carries")
@pytest.mark.parametrize(("name", "reset"), CARRYING)
def test_steps_are_the_sequence(name: str, reset: dict[str, float | None]) -> None:
    x = normal(6, 2, 3, 4, mean=0.2)
    whole = NEURONS.make(name, 3, **reset)
    stepping = NEURONS.make(name, 3, **reset, carry_state=True)
    expected = whole(x)
    assert torch.equal(torch.stack([stepping.step(x_t) for x_t in x]), expected)
    stepping.reset_state()
    with membrane_stats() as stats:
        again = torch.stack([stepping.step(x_t) for x_t in x])
    assert torch.equal(again, expected)
    with membrane_stats() as once:
        whole(x)
    # One entry for each step; together they are the entry of the sequence, and the loss is too.
    assert len(stats) == 6
    assert sum(entry.count for entry in stats) == once.layers[0].count
    together = torch.stack([entry.moments for entry in stats]).sum(0)
    torch.testing.assert_close(together, once.layers[0].moments, rtol=1e-13, atol=1e-14)
    for reduction in ("layers", "elements"):
        rmp = RMPLoss(reduction=reduction)
        torch.testing.assert_close(rmp.value(stats), rmp.value(once), rtol=1e-13, atol=0)


def test_a_carried_sequence_may_come_in_pieces() -> None:
    x = normal(6, 20, 3, mean=0.2)
    lif = LIF(carry_state=True)
    pieces = torch.cat([lif(x[:1]), lif(x[1:5]), lif(x[5:])])
    assert torch.equal(pieces, LIF()(x))
    assert not torch.equal(lif(x), LIF()(x))
    lif.reset_state()
    assert torch.equal(lif(x), LIF()(x))


def test_without_carried_state_two_forwards_are_equal() -> None:
    lif, x = LIF(), normal(4, 2, 3, mean=0.2)
    assert torch.equal(lif(x), lif(x))
    assert lif.u is None
    assert not lif.state_dict()


def test_a_carried_membrane_carries_no_gradient() -> None:
    lif = LIF(carry_state=True)
    first, second = normal(1, 2, 3).requires_grad_(), normal(1, 2, 3, seed=1).requires_grad_()
    lif(first)
    with pytest.warns(UserWarning, match="without its gradient(?s:.*)all steps in one call"):
        spikes = lif(second)
    (gradient,) = torch.autograd.grad(spikes.sum(), [first], allow_unused=True)
    assert gradient is None
    with pytest.warns(UserWarning, match="functional.lif_step"):
        lif.step(second[0])
    lif.reset_state()
    lif(second)
    with torch.no_grad():
        lif(first)  # nothing is missed
    lif(second)


def test_the_functional_step_carries_it() -> None:
    x = normal(4, 2, 3, mean=0.2).requires_grad_()
    u, spikes = torch.zeros(2, 3, dtype=torch.float64), []
    for x_t in x:
        o, u = functional.lif_step(x_t, u)
        spikes.append(o)
    upstream = normal(4, 2, 3, name="upstream")
    whole = LIF()(x)
    assert torch.equal(torch.stack(spikes), whole)
    (one,) = torch.autograd.grad(torch.stack(spikes), x, upstream)
    (other,) = torch.autograd.grad(whole, x, upstream)
    # Values of order one, added in another order: a few times eps = 2.2e-16.
    torch.testing.assert_close(one, other, rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_spikes_and_a_float32_membrane(dtype: torch.dtype) -> None:
    lif = LIF(carry_state=True)
    spikes = lif(normal(3, 2, 4, mean=0.2).to(dtype))
    assert spikes.dtype == dtype
    assert lif.u is not None
    assert lif.u.dtype == torch.float32


def test_a_single_step_needs_a_memory() -> None:
    with pytest.raises(UserError, match="carry_state=True"):
        LIF().step(normal(2, 3))


def test_another_batch_needs_a_reset() -> None:
    lif = LIF(carry_state=True)
    lif(normal(2, 4, 3))
    with pytest.raises(UserError, match=r"\[4, 3\].*\[1, 3\](?s:.*)reset_state\(\)"):
        lif(normal(2, 1, 3))
    lif.reset_state()
    lif(normal(2, 1, 3))


def test_all_constants_out_of_range_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        LIF(decay=1.25, v_threshold=-1)
    assert [p.where for p in caught.value.problems] == ["decay = 1.25", "v_threshold = -1"]
    assert "the paper uses 0.25 (Eq. 1)" in str(caught.value)
    for v_reset in (0.5, 2.0, float("nan")):
        with pytest.raises(UserError, match="must lie below v_threshold"):
            LIF(v_reset=v_reset)
    for bad in (float("nan"), -0.1):
        with pytest.raises(UserError, match=r"must lie in \[0, 1\]"):
            LIF(decay=bad)


@pytest.mark.parametrize("name", NEURONS)
def test_every_neuron_of_the_table(name: str) -> None:
    neuron = NEURONS.make(name, 4)
    assert isinstance(neuron, nn.Module)
    assert isinstance(neuron, SpikingLayer)
    x = normal(3, 2, 4, 5, 5, mean=0.2)
    spikes: Tensor = neuron(x)
    assert spikes.shape == neuron.membrane(x).shape == x.shape
    with membrane_stats(spec=MomentSpec(differentiable=False)) as stats:
        neuron(x)
    if not stats.layers:  # an analog layer, which fires no spike
        assert neuron.unregularized
        return
    (entry,) = stats
    assert entry.count == 3 * 2 * 25
    assert not entry.moments.requires_grad
    if isinstance(neuron, LIF):
        assert set(spikes.unique().tolist()) == {0, 1}
        assert entry.moments[SPIKES].sum() == spikes.sum()
    assert (entry.moments[SQUARE] * entry.count >= entry.moments[MEMBRANE].square()).all()
    assert repr(neuron)


def test_a_norm_of_another_kind_is_told() -> None:
    with pytest.raises(UserError, match=r"BatchNorm2d: is no TDBatchNorm2d"):
        LIF()(torch.ones(2, 1, 3, 2, 2), norm=nn.BatchNorm2d(3))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", NEURONS)
@pytest.mark.parametrize("wrong", [2.0, 0.9, 0, True, "64"])
def test_channels_are_a_whole_number(name: str, wrong: Any) -> None:
    options = {"per": "layer"} if name == "real" else {}
    with pytest.raises(UserError, match=r"must be a whole number(?s:.*)LIF\.from_tau\(2\.0\)"):
        NEURONS.make(name, wrong, **options)


@pytest.mark.parametrize("name", NEURONS)
def test_x_has_the_channels_that_the_neurons_were_made_for(name: str) -> None:
    neuron = NEURONS.make(name, 4)
    for shape in [(3, 2, 4), (3, 2, 4, 5), (3, 2, 4, 5, 5)]:
        assert neuron(torch.ones(shape)).shape == shape
    for shape in [(3, 2, 5), (2, 3, 5, 4), (3, 4, 2, 5, 5)]:
        with pytest.raises(UserError, match=r"these neurons need \[T, B, 4, \.\.\.\], time first"):
            neuron(torch.ones(shape))


@pytest.mark.parametrize("name", NEURONS)
def test_images_without_time_are_refused_with_what_to_type(name: str) -> None:
    images = torch.ones(8, 4, 5, 5)
    advice = r"x\.unsqueeze\(0\)(?s:.*)x\.unflatten\(0, \(T, B\)\)"
    with pytest.raises(UserError, match=advice):
        NEURONS.make(name, 4)(images)
    unknown = NEURONS.make(name, **({"per": "layer"} if name == "real" else {}))
    with pytest.raises(UserError, match=advice + r"(?s:.*)LIF\(5\)"):
        unknown(images)
    assert unknown(images.unsqueeze(0)).shape == (1, 8, 4, 5, 5)


def test_a_neuron_without_integrate_says_so() -> None:
    with pytest.raises(NotImplementedError, match="SpikingLayer defines no integrate"):
        SpikingLayer()(torch.ones(2, 1, 3))
