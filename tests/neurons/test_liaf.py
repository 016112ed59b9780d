"""LIAF cells: the recursion and its reverse in NumPy, finite differences, what they record."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmploss import UserError, membrane_stats
from rmploss.neurons import NEURONS
from rmploss.neurons.liaf import LIAF
from rmploss.ops.lif.moments import SPIKES, MomentSpec
from tests.given import normal

Array = NDArray[np.float64]
SCALE, ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717
"""Of SELU (Klambauer et al. 2017)."""
F: dict[str, tuple[Callable[[Array], Array], Callable[[Array], Array]]] = {
    "selu": (
        lambda v: SCALE * np.where(v > 0, v, ALPHA * (np.exp(np.minimum(v, 0)) - 1)),
        lambda v: SCALE * np.where(v > 0, 1.0, ALPHA * np.exp(np.minimum(v, 0))),
    ),
    "relu": (lambda v: np.maximum(v, 0), lambda v: np.where(v > 0, 1.0, 0.0)),
    "leaky_relu": (lambda v: np.where(v > 0, v, 0.2 * v), lambda v: np.where(v > 0, 1.0, 0.2)),
}
"""f and its derivative."""


def make(**options: Any) -> LIAF:
    """Cells in float64."""
    cell = NEURONS.make("liaf", **options).double()
    assert isinstance(cell, LIAF)
    return cell


def current(T: int = 5) -> Tensor:
    """Input that fires at half of the steps."""
    return normal(T, 2, 3, 4, 5, name="current", mean=0.2)


def integrate(x: Array, decay: float, frozen: Array | None = None) -> tuple[Array, Array]:
    """u and o, step by step; frozen: spikes that stand for the detached ones."""
    u, o, us, spikes = np.zeros_like(x[0]), np.zeros_like(x[0]), [], []
    for t, x_t in enumerate(x):
        u = decay * u * (1 - o) + x_t
        fired = np.where(u >= 0.5, 1.0, 0.0)
        us.append(u)
        spikes.append(fired)
        o = fired if frozen is None else frozen[t]
    return np.stack(us), np.stack(spikes)


def shift(related: bool) -> float:
    """What is subtracted before f."""
    return 0.5 if related else 0.0


@pytest.mark.parametrize("related", [False, True])
@pytest.mark.parametrize("name", F)
def test_forward_and_gradient_are_the_recursion_and_its_reverse(name: str, related: bool) -> None:
    cell = make(activation=name, threshold_related=related, decay=0.7, learn_decay=True)
    x, f = current().requires_grad_(), F[name]
    assert cell.p is not None
    decay = 1 / (1 + np.exp(-cell.p.item()))
    assert decay == pytest.approx(0.7, rel=1e-6)
    u, o = integrate(x.detach().numpy(), decay)
    assert 0.2 < o.mean() < 0.6
    y = cell(x)
    expected = f[0](u - shift(related))
    torch.testing.assert_close(y, torch.from_numpy(expected), rtol=1e-13, atol=1e-14)
    g = normal(*y.shape, name="g")
    y.backward(g)
    later, g_decay, g_x = np.zeros_like(u[0]), 0.0, np.empty_like(u)
    for t in reversed(range(len(u))):
        g_x[t] = f[1](u[t] - shift(related)) * g[t].numpy() + later
        if t:
            g_decay += float((g_x[t] * u[t - 1] * (1 - o[t - 1])).sum())
            later = decay * (1 - o[t - 1]) * g_x[t]
    assert x.grad is not None
    assert cell.p.grad is not None
    torch.testing.assert_close(x.grad, torch.from_numpy(g_x), rtol=1e-12, atol=1e-14)
    assert cell.p.grad.item() == pytest.approx(g_decay * decay * (1 - decay), rel=1e-11)


def test_the_gradient_is_that_of_finite_differences_with_the_spikes_held() -> None:
    cell, x = make(decay=0.6), current().requires_grad_()
    g = normal(*x.shape, name="g")
    (grad,) = torch.autograd.grad(cell(x), x, g)
    base, h = x.detach().numpy(), 1e-5
    _, o = integrate(base, 0.6)
    f = F["selu"][0]
    for index in [(0, 0, 0, 0, 0), (1, 1, 2, 3, 4), (3, 0, 1, 2, 2), (4, 1, 0, 0, 1)]:
        step = np.zeros_like(base)
        step[index] = h
        u = [integrate(base + sign * step, 0.6, frozen=o)[0] for sign in (1, -1)]
        difference = ((f(u[0]) - f(u[1])) * g.numpy()).sum() / (2 * h)
        # f'' <= 2 and f''' <= 2: an error of h^2; rounding of 600 terms: 1e-13 / h.
        assert grad[index].item() == pytest.approx(difference, abs=1e-7)


def test_a_trajectory_by_hand() -> None:
    cell = make(activation="relu", threshold_related=True, decay=0.5)
    x = torch.tensor([0.25, 0.5, 0.25, -0.5], dtype=torch.float64).view(4, 1, 1).requires_grad_()
    # u = .25, .625 (fires), .25, -.375
    assert cell.membrane(x).flatten().tolist() == [0.25, 0.625, 0.25, -0.375]
    y = cell(x)
    assert y.flatten().tolist() == [0, 0.125, 0, 0]
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.flatten().tolist() == [0.5, 1, 0, 0]


def test_it_fires_at_the_threshold() -> None:
    cell = make(activation="relu", decay=0.5)
    below = float(np.nextafter(0.5, 0))
    x = torch.tensor([[0.5, below], [0.125, 0.125]], dtype=torch.float64).view(2, 1, 2)
    leaf = x.clone().requires_grad_()
    with membrane_stats(cell) as stats:
        y = cell(leaf)
    # The first is reset; of the second a half is left.
    assert y[1].flatten().tolist() == [0.125, 0.125 + below / 2]
    assert stats.layers[0].moments[SPIKES].tolist() == [1, 0]
    y[1].sum().backward()
    assert leaf.grad is not None
    assert leaf.grad[0].flatten().tolist() == [0, 0.5]


def test_without_a_parameter_the_decay_is_the_number() -> None:
    assert not [*make(decay=0.3).parameters()]
    learnt = make(decay=0.3, learn_decay=True)
    torch.testing.assert_close(make(decay=0.3)(current()), learnt(current()), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("potential", ["u_pre", "input"])
def test_moments_are_those_of_the_inner_spikes(potential: Any) -> None:
    cell, x = make(), current()
    with membrane_stats(cell, MomentSpec(potential=potential)) as stats:
        cell(x.requires_grad_())
    (layer,) = stats
    u, o = map(torch.from_numpy, integrate(x.detach().numpy(), 0.7))
    w = u if potential == "u_pre" else x.detach()
    target = (w >= 0.5).double()
    expected = torch.stack([r.sum((0, 1, 3, 4)) for r in (w, w.square(), (target - w).square(), o)])
    torch.testing.assert_close(layer.moments, expected, rtol=1e-12, atol=1e-12)
    assert not layer.moments.requires_grad
    assert layer.count == 5 * 2 * 4 * 5


def test_half_precision_is_computed_in_single() -> None:
    cell, x = make().float(), current().bfloat16()
    assert torch.equal(cell(x), cell(x.float()).bfloat16())


def test_wrong_options_are_told() -> None:
    with pytest.raises(UserError) as caught:
        LIAF(activation="tanh", decay=1.0, learn_decay=True)  # pyright: ignore[reportArgumentType]
    assert [p.where for p in caught.value.problems] == ["activation = 'tanh'", "decay = 1.0"]
    with pytest.raises(UserError, match="bad LIAF"):
        LIAF(decay=1.5)
    with pytest.raises(UserError, match="time first"):
        LIAF()(torch.zeros(3))
    with pytest.raises(UserError, match="floating-point"):
        LIAF()(torch.zeros(3, 1, 1, dtype=torch.int64))
