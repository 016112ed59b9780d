"""TSSL-BP's neurons against their two backward passes written out, and against their own membrane.

The transcription is in NumPy, float64, one neuron and one step at a time, with the matrices P and R
built entry by entry; the layer works in scans over all neurons.
"""

import itertools
from typing import Literal

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from rmploss import RMPLoss, UserError, checkpoint, membrane_stats
from rmploss.neurons import tssl
from rmploss.neurons.tssl import TSSL, Constants, effect, next_spikes, post_synaptic, simulate
from rmploss.ops.lif.moments import ERROR, MEMBRANE, SPIKES, SQUARE, MomentSpec
from tests.given import normal

Array = NDArray[np.float64]
Generation = Literal["A", "B"]
ROUNDING = 1e-11
"""Sums of some T^2 = 64 products, of numbers up to 10 T: a thousand roundings of 1e-16 each."""


def close(got: Tensor, want: Tensor | Array, atol: float = ROUNDING) -> None:
    """Equal up to so much."""
    torch.testing.assert_close(got.detach(), torch.as_tensor(want).detach(), rtol=0, atol=atol)


def forward(x: Array, tau_m: float, tau_s: float) -> tuple[Array, Array, Array, Array]:
    """u before the reset, du, s and a of one neuron for its current x `[T]`; V_th = 1."""
    T = len(x)
    u, du, s, a = (np.zeros(T) for _ in range(4))
    for t in range(T):
        before = u[t - 1] * (1 - s[t - 1]) if t else 0.0
        du[t] = -before / tau_m + x[t]
        u[t] = before + du[t]
        s[t] = 1.0 if u[t] > 1 else 0.0
        earlier = a[t - 1] if t else 0.0
        a[t] = earlier + (s[t] - earlier) / tau_s
    return u, du, s, a


def kernel(T: int, tau_s: float) -> Array:
    """P: what a spike at i is worth at k."""
    P = np.zeros((T, T))
    for i, k in itertools.product(range(T), repeat=2):
        if k >= i:
            P[i, k] = (1 / tau_s) * (1 - 1 / tau_s) ** (k - i)
    return P


def reset(u: Array, s: Array, tau_m: float) -> Array:
    """R: what a spike at j does to the next spike k of the same neuron."""
    T = len(u)
    R = np.zeros((T, T))
    for j in range(T):
        later = [k for k in range(j + 1, T) if s[k]]
        if s[j] and later:
            k = later[0]
            R[j, k] = u[j] / tau_m * (1 - 1 / tau_m) ** (k - j - 1)
    return R


def slope(u: float) -> float:
    """Of the sigmoid."""
    f = np.exp(np.clip((1 - u) / 0.2, -8, 8))
    return f / ((1 + f) ** 2 * 0.2)


def inverse(du: float) -> float:
    """1/du, infinite at 0."""
    return 1 / du if du else np.inf


def backward_a(x: Array, g: Array, tau_m: float, tau_s: float) -> Array:
    """dL/dI `[T, N]` of generation A for a layer of N neurons, whatever their arrangement."""
    runs = [forward(column, tau_m, tau_s) for column in x.T]
    rate = np.mean([s for _, _, s, _ in runs])
    delta = np.zeros_like(x)
    for n, (u, du, s, _) in enumerate(runs):
        P = kernel(len(x), tau_s)
        G = (P + P @ reset(u, s, tau_m)) @ g[:, n]
        for t in range(len(x)):
            if rate > 0.1:
                delta[t, n] = np.clip(inverse(du[t]), -10, 10) * G[t] if s[t] else 0.0
            else:
                delta[t, n] = slope(u[t]) * G[t]
    return delta


def backward_b(x: Array, g: Array, tau_m: float, tau_s: float) -> Array:
    """dL/dI `[T, N]` of generation B."""
    T, N = x.shape
    delta = np.zeros_like(x)
    for n in range(N):
        u, du, s, a = forward(x[:, n], tau_m, tau_s)
        E = kernel(T, tau_s) @ g[:, n]
        theta = 0.0
        for t in range(T - 1, -1, -1):
            psi = np.clip(inverse(du[t]), 0, 8) if s[t] else 0.0
            d = psi * E[t]
            if t < T - 1:
                d += theta * u[t] * (1 / tau_m) * psi
                d += theta * (1 - 1 / tau_m) * (1 - s[t])
            theta = d * s[t] + theta * (1 - s[t]) * (1 - 1 / tau_m)
            delta[t, n] = E[t] * slope(u[t]) if a[t] < 1 / (4 * tau_s) else d
    return delta


BACKWARD = {"A": backward_a, "B": backward_b}
LIVELY, QUIET, CROSSING = 0.6, -0.6, 0.95
"""Means of the current: many spikes, few, and neurons that creep over the threshold."""
CASES = list(itertools.product("AB", (LIVELY, QUIET, CROSSING), ((5.0, None), (2.0, 4.0)), (1, 8)))


@pytest.mark.parametrize(("generation", "mean", "taus", "T"), CASES)
def test_backward_is_the_transcription(
    generation: Generation, mean: float, taus: tuple[float, float | None], T: int
) -> None:
    x = normal(T, 4, 3, 2, 5, mean=mean, std=0.1 if mean == CROSSING else 0.8).requires_grad_()
    g = normal(*x.shape, name="upstream")
    layer = TSSL(generation=generation, tau_m=taus[0], tau_s=taus[1])
    a = layer(x)
    (gradient,) = torch.autograd.grad(a, x, g)

    columns = x.detach().numpy().reshape(T, -1)
    runs = [forward(column, taus[0], layer.tau_s) for column in columns.T]
    us, _, _, currents = (np.array(every).T.reshape(x.shape) for every in zip(*runs, strict=True))
    np.testing.assert_array_equal(layer.membrane(x).numpy(), us)
    close(a, currents)
    expected = BACKWARD[generation](columns, g.numpy().reshape(T, -1), taus[0], layer.tau_s)
    close(gradient, expected.reshape(x.shape))


def test_the_cases_meet_every_branch() -> None:
    """The clips, both sides of the fallbacks, neurons with two spikes and with none between."""
    seen: set[str] = set()
    for mean in (LIVELY, QUIET, CROSSING):
        x = normal(8, 4, 3, 2, 5, mean=mean, std=0.1 if mean == CROSSING else 0.8)
        runs = [forward(column, 5.0, 3.0) for column in x.numpy().reshape(8, -1).T]
        rate = np.mean([s for _, _, s, _ in runs])
        seen.add("lively" if rate > 0.1 else "quiet")
        assert rate > 0
        for u, du, s, a in runs:
            fired = s.astype(bool)
            assert (du[fired] > 0).all()  # who fires has risen
            seen |= {"clipped"} if (du[fired] < 1 / 8).any() else set()
            seen |= {"free"} if (du[fired] > 1 / 8).any() else set()
            seen |= {"again"} if (reset(u, s, 5.0) > 0).any() else set()
            for t in range(8):
                seen.add(f"{'before' if a[t] < 1 / 12 else 'after'} {'spike' if s[t] else 'none'}")
    assert seen == {
        "lively", "quiet", "clipped", "free", "again", "before none", "after none", "after spike"
    }  # fmt: skip


def test_the_fallback_of_a_begins_at_a_tenth() -> None:
    x = torch.full((1, 1, 10), -0.5, dtype=torch.float64)
    for spikes, steep in ((1, False), (2, True)):  # 0.1 of the outputs is not more than 0.1
        x[..., :spikes] = 1.25
        leaf = x.clone().requires_grad_()
        TSSL()(leaf).sum().backward()
        assert leaf.grad is not None
        # a(1) = s(1) / 2, so G = 1/2; du = x.
        first = 0.5 / 1.25 if steep else 0.5 * slope(1.25)
        assert leaf.grad[0, 0, 0].item() == pytest.approx(first, rel=1e-14)
        assert (leaf.grad[0, 0, -1].item() == 0) == steep


def test_one_neuron_by_hand() -> None:
    """tau_m = 5, tau_s = 2, x = 0.75, 0.5, 0, 1.5: spikes at the second and the fourth step.

    u(2) = 0.75 (1 - 1/5) + 0.5 = 1.1, du(2) = 0.5 - 0.15 = 0.35; then rest, and u(4) = 1.5.
    """
    x = torch.tensor([0.75, 0.5, 0, 1.5], dtype=torch.float64).view(4, 1, 1).requires_grad_()
    layer = TSSL()
    a = layer(x)
    close(layer.membrane(x).flatten(), np.array([0.75, 1.1, 0, 1.5]), 1e-15)
    assert a.flatten().tolist() == [0, 0.5, 0.25, 0.625]
    (gradient,) = torch.autograd.grad(a[3].sum(), x)
    # G(4) = 1/2; R(2, 4) = 1.1 / 5 x 4/5 = 0.176, so G(2) = 1/8 + 0.176 / 2 = 0.213.
    close(gradient.flatten(), np.array([0, 0.213 / 0.35, 0, 0.5 / 1.5]), 1e-15)


def test_one_neuron_by_hand_in_generation_b() -> None:
    """The same neuron and tau_s. Before its first spike the slope of the sigmoid stands in.

    t = 4: d = 1/3. t = 3: silent, 0.8/3 though E = 1/4 (the carry alone). t = 2: psi = 1/0.35,
    E = 1/8, c = 0.8/3.
    """
    x = torch.tensor([0.75, 0.5, 0, 1.5], dtype=torch.float64).view(4, 1, 1).requires_grad_()
    a = TSSL(generation="B", tau_s=2.0)(x)
    (gradient,) = torch.autograd.grad(a[3].sum(), x)
    second = (1 / 8 + 0.8 / 3 * 1.1 / 5) / 0.35
    f = np.exp(0.25 / 0.2)
    first = 1 / 16 * f / ((1 + f) ** 2 * 0.2)
    close(gradient.flatten(), np.array([first, second, 0.8 / 3, 1 / 3]), 1e-15)


def test_the_reset_terms_are_those_of_the_membrane_itself() -> None:
    """R(j, k): u(k) moves so much when the step after the spike j loses what the reset took away.

    The membrane is run again with x(j+1) moved by h u(j) / tau_m. Between two spikes it is linear
    in x, so the difference holds for any h that moves no spike.
    """
    tau_m, T, h = 5.0, 12, 2.0**-20
    constants = Constants("A", tau_m, 2.0, 1.0)
    x = normal(T, 200, 1, mean=0.4, std=0.6)
    trace = simulate(x, constants)
    u, s = torch.stack(trace.u), torch.stack(trace.s)
    shares = [torch.stack(next_spikes(_unit(k, x), trace, tau_m)) for k in range(T)]
    R = torch.stack(shares, 1)  # [T, T, 200, 1]
    pairs = 0
    for n in range(200):
        spikes = s[:, n, 0].nonzero().flatten().tolist()
        expected = torch.zeros(T, T, dtype=torch.float64)
        for j, k in itertools.pairwise(spikes):
            moved = x[:, n : n + 1].clone()
            moved[j + 1] += h * u[j, n, 0] / tau_m
            again = simulate(moved, constants)
            assert torch.equal(torch.stack(again.s)[: k + 1], s[: k + 1, n : n + 1])
            expected[j, k] = (again.u[k][0, 0] - u[k, n, 0]) / h
            pairs += 1
        # u is rounded to 2^-52 a few times, and divided by h.
        close(R[:, :, n, 0], expected, 16 * 2.0**-52 / h)
    assert pairs > 200


def _unit(k: int, like: Tensor) -> list[Tensor]:
    g = torch.zeros_like(like)
    g[k] = 1
    return [*g]


def test_the_fallback_of_b_is_below_a_quarter_of_a_spike() -> None:
    """a = 1/2, 1/4, 1/8: the last is 1 / (4 tau_s), where a silent neuron's d = 0 still stands."""
    x = torch.tensor([1.5, 0, 0, 0], dtype=torch.float64).view(4, 1, 1)
    for T, at_the_bound in ((3, True), (4, False)):
        leaf = x[:T].clone().requires_grad_()
        a = TSSL(generation="B", tau_s=2.0)(leaf)
        assert (a[-1].item() == 1 / 8) == at_the_bound
        a[-1].sum().backward()
        assert leaf.grad is not None
        # One step later a = 1/16, and the slope of the sigmoid at u = 0 stands in: E = 1/2.
        assert leaf.grad[-1].item() == (0 if at_the_bound else pytest.approx(0.5 * slope(0.0)))


def test_the_effect_of_a_spike_is_what_the_filter_makes_of_it() -> None:
    s = normal(6, 3).requires_grad_()
    g = normal(6, 3, name="upstream")
    for tau_s in (1.0, 2.0, 3.0):
        (expected,) = torch.autograd.grad(post_synaptic(s, tau_s), s, g)
        torch.testing.assert_close(
            torch.stack(effect([*g], tau_s)), expected, rtol=1e-14, atol=1e-15
        )


def test_it_does_not_fire_at_the_threshold() -> None:
    x = torch.tensor([1.0, np.nextafter(1.0, 2)], dtype=torch.float64).view(1, 1, 2)
    assert TSSL(tau_s=1.0)(x).flatten().tolist() == [0, 1]


def test_moments_are_recorded_without_a_graph() -> None:
    x = normal(5, 2, 3, 4, 4, mean=0.5).requires_grad_()
    layer = TSSL()
    with membrane_stats() as stats:
        layer(x)
    (entry,) = stats
    u = layer.membrane(x)
    s = (u > 1).double()
    over = (0, 1, 3, 4)
    assert entry.count == 5 * 2 * 16
    assert not entry.moments.requires_grad
    close(entry.moments[MEMBRANE], u.sum(over))
    close(entry.moments[SQUARE], u.square().sum(over))
    close(entry.moments[ERROR], (s - u).square().sum(over))
    close(entry.moments[SPIKES], s.sum(over))
    assert entry.v_threshold == 1.0
    with pytest.raises(UserError, match="its backward pass has no derivative"):
        RMPLoss().value(stats)
    with membrane_stats(spec=MomentSpec(potential="input")) as stats:
        layer(x)
    target = (x > 1).double()
    error = (target - x).square().sum(over)
    close(stats.layers[0].moments[ERROR], error)


def test_half_precision_is_computed_in_single() -> None:
    x = normal(5, 2, 3, mean=0.5).bfloat16().requires_grad_()
    wide = x.detach().float().requires_grad_()
    for generation in ("A", "B"):
        a, expected = (TSSL(generation=generation)(y) for y in (x, wide))
        assert a.dtype == torch.bfloat16
        assert torch.equal(a, expected.bfloat16())
        (one,) = torch.autograd.grad(a.sum(), x)
        (other,) = torch.autograd.grad(expected.sum(), wide)
        assert torch.equal(one, other.bfloat16())


def test_two_forwards_are_equal_and_a_checkpointed_one_too() -> None:
    x, layer = normal(5, 2, 3, mean=0.5).requires_grad_(), TSSL()
    (one,) = torch.autograd.grad(layer(x).square().sum(), x)
    (two,) = torch.autograd.grad(checkpoint(layer, x).square().sum(), x)
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(one, two)


def test_what_cannot_be() -> None:
    with pytest.raises(UserError, match=r'"A", of the paper'):
        TSSL(generation="C")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError) as caught:
        TSSL(tau_m=0.5, tau_s=0.0, v_threshold=-1.0)
    assert [p.where for p in caught.value.problems] == [
        "tau_m = 0.5", "tau_s = 0.0", "v_threshold = -1.0"
    ]  # fmt: skip
    with pytest.raises(UserError, match="time first"):
        TSSL()(torch.zeros(3, 4))
    assert TSSL.unregularized is not None
    assert "derivative with respect to the membrane" in TSSL.unregularized
    assert "tau_s=3.0" in repr(TSSL(generation="B"))


@pytest.mark.parametrize("generation", ["A", "B"])
def test_a_batch_is_computed_in_parts_as_in_one(
    generation: Generation, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = normal(5, 7, 3, 4, 2, std=2.0)
    g = normal(5, 7, 3, 4, 2, name="upstream")
    found = []
    for part in (2**17, 5 * 2 * 24, 1):  # all samples at once, two, one
        monkeypatch.setattr(tssl, "PART", part)
        again = x.clone().requires_grad_()
        a = TSSL(generation=generation)(again)
        a.backward(g)
        assert again.grad is not None
        found.append((a.detach(), again.grad))
    assert found[0][1].abs().max() > 0
    for a, gradient in found[1:]:
        assert torch.equal(a, found[0][0])
        assert torch.equal(gradient, found[0][1])
