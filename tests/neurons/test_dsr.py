"""DSR: the exact forward step by step, the closed forms in NumPy, and what the trains represent."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmploss import UserError, membrane_stats
from rmploss.lifecycle import constrain
from rmploss.neurons import NEURONS, Accumulator
from rmploss.neurons.dsr import DSRIF, DSRLIF, WeightedMean
from rmploss.ops.lif.moments import MomentSpec
from tests.given import normal

Array = NDArray[np.float64]
NAMES = ["dsr-if", "dsr-lif"]
SHORT = {"threshold": 0.6, "alpha": 0.5, "dt": 0.1, "tau": 0.8}
"""Constants of leaky neurons that fire within few steps; tau is not 1, so that it shows."""


def make(name: str, channels: int | None = None, **options: Any) -> DSRIF | DSRLIF:
    """Neurons in float64."""
    given = {"threshold": 2.0} if name == "dsr-if" else SHORT
    neuron = NEURONS.make(name, channels, **{**given, **options}).double()
    assert isinstance(neuron, DSRIF | DSRLIF)
    return neuron


def current(T: int = 6, *shape: int) -> Tensor:
    """Input that leaves the clamp on both sides."""
    return normal(T, *(shape or (2, 3, 4, 5)), name="current", mean=2, std=3)


def recursion(x: Array, name: str, *, threshold: float, alpha: float) -> tuple[Array, Array]:
    """U and o as the paper writes them, one step after the other, not in units of V_th."""
    tau, dt = SHORT["tau"], SHORT["dt"]
    leak = np.exp(-dt / tau)
    v, us, outputs = np.zeros_like(x[0]), [], []
    for x_t in x:
        u = v + x_t if name == "dsr-if" else leak * v + (1 - leak) * x_t
        s = np.where(u >= alpha * threshold, 1.0, 0.0)
        v = u - threshold * s
        us.append(u)
        outputs.append(threshold * s if name == "dsr-if" else threshold * s / dt)
    return np.stack(us), np.stack(outputs)


def weights(T: int) -> Array:
    """Of the leaky mean."""
    leak = np.exp(-SHORT["dt"] / SHORT["tau"])
    powers = np.array([leak ** (T - t) for t in range(1, T + 1)])
    return powers / powers.sum()


def closed_form(x: Array, g: Array, name: str, threshold: float) -> tuple[Array, float]:
    """dL/dI `[T, ...]` and dL/dV_th, line by line from the released code's formulas."""
    T = len(x)
    tau, dt = SHORT["tau"], SHORT["dt"]
    if name == "dsr-if":
        mean, G = x.sum(0) / T, g.sum(0)
        passes = (mean >= 0) & (mean <= threshold)
        return np.stack([G / T * passes] * T), float((G * (mean > threshold)).sum())
    mean, G = np.tensordot(weights(T), x, 1), T * np.tensordot(weights(T), g, 1)
    top = tau * threshold / dt
    passes = (mean > 0) & (mean < top)
    return np.stack([G / (tau * T) * passes] * T), float(dt * (G * (mean > top)).sum())


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (40, 3)])
@pytest.mark.parametrize("name", NAMES)
def test_the_forward_is_the_recursion(name: str, shape: tuple[int, ...]) -> None:
    neuron, x = make(name), current(6, *shape)
    threshold = float(neuron.threshold.detach())
    u, o = recursion(x.numpy(), name, threshold=threshold, alpha=neuron.v_threshold)
    assert 0.1 < (o > 0).mean() < 0.9
    assert u[o > 0].max() > threshold
    torch.testing.assert_close(neuron(x), torch.from_numpy(o), rtol=1e-15, atol=0)
    torch.testing.assert_close(
        neuron.membrane(x) * threshold, torch.from_numpy(u), rtol=1e-12, atol=1e-12
    )


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (40, 3)])
@pytest.mark.parametrize("T", [1, 6])
@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_the_closed_form(name: str, T: int, shape: tuple[int, ...]) -> None:
    neuron, x = make(name), current(T, *shape).requires_grad_()
    g = normal(*x.shape, name="g")
    neuron(x).backward(g)
    threshold = float(neuron.threshold.detach())
    g_x, g_threshold = closed_form(x.detach().numpy(), g.numpy(), name, threshold)
    assert g_x.any()
    assert not g_x.all()
    assert g_threshold != 0
    assert x.grad is not None
    assert neuron.threshold.grad is not None
    # Sums of at most T B C H W = 720 numbers of the size of g.
    torch.testing.assert_close(x.grad, torch.from_numpy(g_x), rtol=1e-12, atol=1e-14)
    assert neuron.threshold.grad.item() == pytest.approx(g_threshold, rel=1e-11)


def test_a_trajectory_by_hand() -> None:
    # V_th = 2, fires at 1: U = .5, 1.5 (fires, leaves -.5), 1 (fires, -1), 1.5 (fires, -.5).
    neuron = make("dsr-if")
    x = torch.tensor([0.5, 1.0, 1.5, 2.5], dtype=torch.float64).view(4, 1, 1).requires_grad_()
    o = neuron(x)
    assert o.flatten().tolist() == [0, 2, 2, 2]
    assert (neuron.membrane(x) * 2).flatten().tolist() == [0.5, 1.5, 1.0, 1.5]
    (o.flatten() * torch.tensor([1.0, 2, 3, 6])).sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [3.0] * 4  # G / T, as the mean 1.375 is below 2
    assert neuron.threshold.grad is not None
    assert neuron.threshold.grad.item() == 0


def test_the_ends_of_the_clamp() -> None:
    # IF: both ends pass, neither moves V_th. LIF: neither end passes.
    for name, at_ends in (("dsr-if", 1.0), ("dsr-lif", 0.0)):
        leaky: dict[str, Any] = {"threshold": 0.5, "tau": 1.0, "dt": 0.5}
        neuron = make(name, **({} if name == "dsr-if" else leaky))
        top = 2.0 if name == "dsr-if" else 1.0
        x = torch.tensor([[[0.0, top]]], dtype=torch.float64).requires_grad_()
        neuron(x).sum().backward()
        assert x.grad is not None
        assert x.grad.flatten().tolist() == [at_ends, at_ends]
        assert neuron.threshold.grad is not None
        assert neuron.threshold.grad.item() == 0


def test_the_factor_of_the_gradient_of_the_threshold() -> None:
    x, grads = current(), []
    for gain in (None, 1 / SHORT["dt"]):
        neuron = make("dsr-lif", threshold_gain=gain)
        neuron(x).sum().backward()
        assert neuron.threshold.grad is not None
        grads.append(neuron.threshold.grad.item())
    # The derivative of the clamp is 1 / dt^2 times what the released code has.
    assert grads[1] == pytest.approx(grads[0] / SHORT["dt"] ** 2, rel=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_a_train_represents_the_clamped_mean_of_its_input(name: str) -> None:
    T, neuron = 400, make(name, 3)
    threshold = float(neuron.threshold.detach())
    # Constant inputs below, inside and above the clamp.
    x = torch.linspace(-2, 12, 57, dtype=torch.float64).view(1, 1, 1, 57).expand(T, -1, 3, -1)
    value = neuron.readout()(neuron(x))[0, 0]
    if name == "dsr-if":
        ideal = x[0, 0, 0].clamp(0, threshold)
        # |V(T)| / T: V stays between (alpha - 1) V_th and alpha V_th inside the clamp.
        bound = 0.5 * threshold / T
    else:
        leak = np.exp(-SHORT["dt"] / SHORT["tau"])
        ideal = (x[0, 0, 0] * (1 - leak) / SHORT["dt"]).clamp(0, threshold / SHORT["dt"])
        # |V(T)| / (dt sum leak^(T-j)), and the geometric sum is 1 / (1 - leak) but for e^-50.
        bound = 0.5 * threshold / SHORT["dt"] * (1 - leak)
    inside = (ideal > 0) & (ideal < ideal.max())
    assert inside.sum() > 5
    error = (value - ideal).abs()
    assert error[inside].max() <= bound * (1 + 1e-9)
    assert error[x[0, 0, 0] <= 0].max() == 0
    assert error.max() <= (bound if name == "dsr-if" else 2 * bound)


def test_the_balance_that_the_representation_rests_on() -> None:
    # sum leak^(T-t) (1-leak) I - dt sum leak^(T-t) o = V(T): exact, whatever the spikes.
    neuron, x = make("dsr-lif"), current(9)
    leak, threshold = np.exp(-SHORT["dt"] / SHORT["tau"]), float(neuron.threshold.detach())
    o, u = neuron(x).detach(), neuron.membrane(x) * threshold
    powers = torch.from_numpy(leak ** np.arange(8.0, -1, -1)).view(-1, 1, 1, 1, 1)
    v = u[-1] - threshold * (o[-1] > 0)
    balance = (powers * ((1 - leak) * x - SHORT["dt"] * o)).sum(0)
    torch.testing.assert_close(balance, v, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", NAMES)
def test_a_static_input_is_one_step_expanded(name: str) -> None:
    grads = []
    for copied in (False, True):
        neuron, x = make(name), current(1).requires_grad_()
        steps = x.expand(6, -1, -1, -1, -1)
        o = neuron(steps.clone() if copied else steps)
        o.backward(normal(*o.shape, name="g"))
        assert x.grad is not None
        assert neuron.threshold.grad is not None
        grads.append((o.detach(), x.grad, neuron.threshold.grad))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_changes_nothing(name: str) -> None:
    neuron, x = make(name), current().requires_grad_()
    o = neuron(x)
    g = normal(*o.shape, name="g")
    (expected,) = torch.autograd.grad(o, x, g)
    last = x.detach().movedim(2, -1).contiguous().movedim(-1, 2).requires_grad_()
    assert not last.is_contiguous()
    again = neuron(last)
    assert torch.equal(again, o)
    (found,) = torch.autograd.grad(again, last, g.movedim(2, -1).contiguous().movedim(-1, 2))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", NAMES)
def test_backward_keeps_two_masks_of_one_step(name: str) -> None:
    kept: list[Tensor] = []
    neuron = make(name)
    x = current().requires_grad_()

    def pack(saved: Tensor) -> Tensor:
        kept.append(saved)
        return saved

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda saved: saved):
        neuron(x)
    assert [(k.dtype, k.shape) for k in kept] == [(torch.bool, x.shape[1:])] * 2


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("potential", ["u_pre", "input"])
def test_moments_are_those_of_the_membrane_over_the_threshold(name: str, potential: Any) -> None:
    neuron, x = make(name), current()
    spec = MomentSpec(potential=potential)
    with membrane_stats(neuron, spec) as stats:
        s = (neuron(x.requires_grad_()) > 0).double()
    (layer,) = stats
    gain = 1.0 if name == "dsr-if" else 1 - np.exp(-SHORT["dt"] / SHORT["tau"])
    threshold = neuron.threshold.detach()
    w = neuron.membrane(x) if potential == "u_pre" else x.detach() * gain / threshold
    target = (w >= neuron.v_threshold).double()
    rows = (w, w.square(), (target - w).square(), s)
    expected = torch.stack([row.sum((0, 1, 3, 4)) for row in rows])
    torch.testing.assert_close(layer.moments, expected, rtol=1e-12, atol=1e-12)
    assert not layer.moments.requires_grad
    assert layer.count == 6 * 2 * 4 * 5


def test_the_readouts() -> None:
    x = normal(5, 2, 3, name="trains")
    mean, weighted = DSRIF().readout(), DSRLIF(tau=0.8, dt=0.1).readout()
    assert isinstance(mean, Accumulator)
    assert isinstance(weighted, WeightedMean)
    torch.testing.assert_close(mean(x), x.mean(0))
    expected = np.tensordot(weights(5), x.numpy(), 1)
    torch.testing.assert_close(weighted(x), torch.from_numpy(expected), rtol=1e-13, atol=1e-14)
    assert torch.autograd.gradcheck(weighted, (x.requires_grad_(),))


@pytest.mark.parametrize("name", NAMES)
def test_half_precision_is_computed_in_single(name: str) -> None:
    neuron = make(name).float()
    x = current().bfloat16().requires_grad_()
    o = neuron(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(neuron(x), o)
    assert o.dtype == torch.bfloat16
    assert torch.equal(o, neuron(x.detach().float()).bfloat16())
    o.sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_released_spikes_are_binary(name: str) -> None:
    neuron, x = make(name), current()
    with torch.no_grad():
        neuron.threshold.fill_(0.9)
    values = neuron(x).detach()
    height = neuron.release()
    assert height is not None
    assert height.tolist() == [pytest.approx(0.9 if name == "dsr-if" else 0.9 / 0.1, rel=1e-15)]
    spikes = neuron(x)
    assert set(spikes.unique().tolist()) == {0, 1}
    torch.testing.assert_close(height * spikes, values, rtol=1e-15, atol=0)
    assert neuron.release() is None


def test_the_threshold_stays_above_its_bound() -> None:
    neuron = make("dsr-if", bound=0.5)
    with torch.no_grad():
        neuron.threshold.fill_(-3)
    constrain(neuron)
    assert neuron.threshold.item() == 0.5


def test_defaults_are_the_published_ones() -> None:
    made, leaky = DSRIF(), DSRLIF()
    assert (made.threshold.item(), made.v_threshold, made.bound) == (6.0, 0.5, 0.01)
    assert leaky.threshold.item() == pytest.approx(0.3)
    assert (leaky.v_threshold, leaky.bound) == (0.3, 0.0005)
    assert leaky.decay == pytest.approx(0.951229424500714)
    assert (leaky.slope, leaky.height, leaky.threshold_gain) == (1.0, 20.0, 0.05)


def test_wrong_constants_are_told() -> None:
    with pytest.raises(UserError) as caught:
        NEURONS.make("dsr-lif", 3, bound=-1.0, alpha=0.0, tau=0.0, dt=0.1, threshold=-2.0)
    assert [p.where for p in caught.value.problems] == [
        "bound = -1.0", "alpha = 0.0", "tau = 0.0", "threshold = -2.0"
    ]  # fmt: skip
    with pytest.raises(UserError, match="bad neuron") as caught:
        DSRIF(threshold=0.1, bound=0.2)
    assert caught.value.problems[0].what == "must be at least bound = 0.2"
    with pytest.raises(UserError, match="time first"):
        DSRIF()(torch.zeros(3))
