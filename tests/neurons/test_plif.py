"""PLIF against its recursion, written out twice: by hand in NumPy, and for autograd."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from rmploss import TDBatchNorm2d, UserError, membrane_stats, ops
from rmploss.models.layers import conv3x3
from rmploss.neurons.plif import PLIF
from rmploss.ops.lif.moments import ERROR, MEMBRANE, SPIKES, SQUARE
from tests.given import normal

SHAPE = T, B, C, H, W = (5, 2, 3, 4, 2)
BACKENDS = ["reference", "cpu"]
Array = NDArray[np.float64]


def fire(v: Tensor) -> Tensor:
    """A step whose slope is that of arctan(pi v) / pi: 1 / (1 + pi^2 v^2)."""
    smooth = torch.arctan(math.pi * v) / math.pi
    return (v >= 0).to(v.dtype) + (smooth - smooth.detach())  # exactly 0 or 1


def literal(
    x: Tensor, w: Tensor, *, v_reset: float | None = 0.0, detach_reset: bool = True
) -> tuple[Tensor, Tensor]:
    """Spikes and membranes `[T, ...]`: h = v + k (x - v), s = 1[h >= 1], v = h (1 - s) or h - s."""
    k, v = torch.sigmoid(w), torch.zeros_like(x[0])
    spikes, membranes = [], []
    for x_t in x:
        h = v + k * (x_t - v)
        s = fire(h - 1)
        r = s.detach() if detach_reset else s
        v = h - r if v_reset is None else h * (1 - r)
        spikes.append(s)
        membranes.append(h)
    u = torch.stack(membranes)
    assert (u - 1).abs().min() > 1e-9  # so that rounding moves no spike
    return torch.stack(spikes), u


def by_hand(x: Array, w: float, g: Array) -> tuple[Array, Array, float]:
    """Spikes, dL/dx and dL/dw for dL/ds = g, by the reverse recursion; the reset is detached.

    dL/dh(t) = g(t) / (1 + pi^2 (h - 1)^2) + (1 - s(t)) D(t);   D(t-1) = (1 - k) dL/dh(t)
    dL/dx = k dL/dh;   dL/dw = sum dL/dh k (1 - k) (x(t) - v(t-1))
    """
    k, v = 1 / (1 + math.exp(-w)), np.zeros_like(x[0])
    before, h = np.empty_like(x), np.empty_like(x)
    for t in range(len(x)):
        before[t] = v
        h[t] = v + k * (x[t] - v)
        v = np.where(h[t] >= 1, 0.0, h[t])
    s, g_x, g_w, carried = (h >= 1).astype(float), np.empty_like(x), 0.0, np.zeros_like(v)
    for t in reversed(range(len(x))):
        g_h = g[t] / (1 + math.pi**2 * (h[t] - 1) ** 2) + (1 - s[t]) * carried
        g_x[t], carried = k * g_h, (1 - k) * g_h
        g_w += float((g_h * k * (1 - k) * (x[t] - before[t])).sum())
    return s, g_x, g_w


def plif(w: float = 0.3, **options: Any) -> PLIF:
    """In float64, with a w that is not the initial one."""
    neuron = PLIF(C, **options).double()
    with torch.no_grad():
        neuron.w.fill_(w)
    return neuron


def close(got: Tensor | None, want: Tensor | None) -> None:
    """Equal up to the order of sums of the 240 values of a sequence: 240 roundings and some."""
    assert got is not None
    assert want is not None
    scale = 1 + want.abs().max().item()
    torch.testing.assert_close(got, want, rtol=0, atol=1e3 * 2.2e-16 * scale)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("w", [-1.0, 0.0, 0.7])
def test_the_gradient_is_the_recursion_by_hand(w: float, backend: str) -> None:
    x, upstream = normal(*SHAPE, mean=1.0, std=2.0).requires_grad_(), normal(*SHAPE, name="g")
    neuron = plif(w)
    spikes = neuron(x)
    spikes.backward(upstream)
    s, g_x, g_w = by_hand(x.detach().numpy(), w, upstream.numpy())
    assert 0.1 < s.mean() < 0.6
    np.testing.assert_array_equal(spikes.detach().numpy(), s)
    close(x.grad, torch.from_numpy(g_x))
    close(neuron.w.grad, torch.tensor(g_w, dtype=torch.float64))


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("detach_reset", [True, False])
@pytest.mark.parametrize("v_reset", [0.0, None])
def test_both_resets_with_and_without_their_gradient(
    v_reset: float | None, detach_reset: bool, backend: str
) -> None:
    x, upstream = normal(*SHAPE, mean=1.0, std=2.0), normal(*SHAPE, name="g")
    neuron = plif(v_reset=v_reset, detach_reset=detach_reset)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    w = neuron.w.detach().clone().requires_grad_()
    expected, u = literal(theirs, w, v_reset=v_reset, detach_reset=detach_reset)
    spikes = neuron(ours)
    assert torch.equal(spikes, expected)
    torch.testing.assert_close(neuron.membrane(x), u.detach(), rtol=1e-14, atol=1e-14)
    spikes.backward(upstream)
    expected.backward(upstream)
    close(ours.grad, theirs.grad)
    close(neuron.w.grad, w.grad)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
@pytest.mark.parametrize("repeats", [1, T])
@pytest.mark.parametrize("shortcut", [False, True])
@pytest.mark.parametrize("mode", ["none", "train", "eval"])
def test_norm_and_shortcut_and_equal_steps_are_scaled_alike(
    mode: str, shortcut: bool, repeats: int, backend: str
) -> None:
    steps = T if repeats == 1 else 1
    given = {
        "x": normal(steps, B, C, H, W, mean=1.0, std=2.0),
        "residual": normal(*SHAPE, name="r", mean=0.5),
        "gain": 2 + 0.3 * normal(C, name="gain"),
        "offset": 1 + 0.3 * normal(C, name="offset"),
        "w": torch.tensor(0.3, dtype=torch.float64),
    }
    upstream = normal(*SHAPE, name="g")

    neuron, norm = plif(), TDBatchNorm2d(C, v_threshold=0.8).double()
    with torch.no_grad():
        norm.weight.copy_(given["gain"])
        norm.bias.copy_(given["offset"])
    norm.train(mode == "train")
    x, residual = (given[name].clone().requires_grad_() for name in ("x", "residual"))
    spikes = neuron(
        x,
        norm=None if mode == "none" else norm,
        residual=residual if shortcut else None,
        repeats=repeats,
    )
    spikes.backward(upstream)

    leaves = {name: value.clone().requires_grad_() for name, value in given.items()}
    current = leaves["x"]
    if mode != "none":
        mean, var = torch.zeros(C).double(), torch.ones(C).double()
        current = F.batch_norm(
            current.flatten(0, 1), mean, var, 0.8 * leaves["gain"], leaves["offset"],
            training=mode == "train", eps=norm.eps,
        ).unflatten(0, (steps, B))  # fmt: skip
    current = current.expand(T, -1, -1, -1, -1)
    expected, _ = literal(current + leaves["residual"] if shortcut else current, leaves["w"])
    expected.backward(upstream)

    assert torch.equal(spikes, expected)
    assert 0.05 < spikes.mean().item() < 0.95
    close(x.grad, leaves["x"].grad)
    close(neuron.w.grad, leaves["w"].grad)
    if shortcut:
        close(residual.grad, leaves["residual"].grad)
    if mode != "none":
        close(norm.weight.grad, leaves["gain"].grad)
        close(norm.bias.grad, leaves["offset"].grad)


@pytest.mark.parametrize("backend", BACKENDS, indirect=True)
def test_its_moments_are_those_of_the_literal_membrane(backend: str) -> None:
    x = normal(*SHAPE, mean=1.0, std=2.0)
    neuron = plif()
    w = neuron.w.detach().clone().requires_grad_()
    spikes, u = literal(x, w)
    o = spikes.detach()
    over = (0, 1, 3, 4)
    with membrane_stats() as stats:
        neuron(x)
    (entry,) = stats
    error = (o - u).square()
    for row, of in ((MEMBRANE, u), (SQUARE, u.square()), (ERROR, error), (SPIKES, o)):
        close(entry.moments[row], of.sum(over))
    entry.moments[ERROR].sum().backward()
    error.sum().backward()  # the quantization error teaches w as well
    close(neuron.w.grad, w.grad)


def test_norm_and_neurons_are_one_operation(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = ops.lif_layer
    monkeypatch.setattr(ops, "lif_layer", lambda *a, **k: calls.append(k["eps"]) or fused(*a, **k))
    conv3x3(2, 24, TDBatchNorm2d).fire(normal(3, 2, 2, 5, 5).float(), PLIF(24))
    assert calls == [1e-5]


def test_a_trajectory() -> None:
    # tau = 2, x = 1.2: 0.6; 0.6 + 0.6/2 = 0.9; 0.9 + 0.3/2 = 1.05 fires; from rest again.
    x = torch.full((4, 1, 1), 1.2, dtype=torch.float64)
    neuron = PLIF().double()
    expected = torch.tensor([0.6, 0.9, 1.05, 0.6], dtype=torch.float64).view(4, 1, 1)
    torch.testing.assert_close(neuron.membrane(x), expected, rtol=0, atol=1e-15)
    assert neuron(x).flatten().tolist() == [0, 0, 1, 0]


@pytest.mark.parametrize("tau", [1.1, 2.0, 16.0])
def test_w_starts_where_tau_says(tau: float) -> None:
    neuron = PLIF(tau=tau)
    assert neuron.w.shape == ()
    assert neuron.input_gain().item() == pytest.approx(1 / tau, rel=1e-6)
    assert f"tau={tau:.4g}" in repr(neuron)


def test_wrong_constants_are_told() -> None:
    with pytest.raises(UserError) as caught:
        PLIF(tau=1.0, v_reset=-0.1)
    assert [p.where for p in caught.value.problems] == ["tau = 1.0", "v_reset = -0.1"]
