"""The LIF operation against an independent reverse recursion and against finite differences."""

import itertools
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from rmploss import ops
from rmploss.ops.lif.moments import MomentSpec
from rmploss.surrogate import SURROGATES, Surrogate
from tests import lif_oracle as oracle
from tests.given import normal
from tests.lif_oracle import Neuron

EPS = np.finfo(np.float64).eps
RESETS = {"hard": 0.0, "hard to -0.2": -0.2, "soft": None}
SHAPE = (5, 2, 3, 2)

NEURONS = [
    Neuron(surrogate=name, v_reset=reset, detach_reset=detach)
    for name, reset, detach in itertools.product(oracle.PHI, RESETS.values(), (False, True))
] + [Neuron(v_reset=None, reset_by=0.9, detach_reset=detach) for detach in (False, True)]
READINGS = [
    MomentSpec(p=p, potential=potential, detach_target=detach)
    for p, potential, detach in itertools.product(
        (1.0, 2.0, 1.5, 0.5), ("u_pre", "input"), (True, False)
    )
]


def label(value: object) -> str | None:
    """A readable test name of a neuron or of a reading."""
    if isinstance(value, Neuron):
        reset = next(name for name, v in RESETS.items() if v == value.v_reset)
        reset += "" if value.reset_by is None else f" by {value.reset_by}"
        return f"{value.surrogate}-{reset}-{'detached' if value.detach_reset else 'attached'}"
    if isinstance(value, MomentSpec):
        return f"p={value.p}-{value.potential}-{'constant' if value.detach_target else 'firing'}"
    return None if value is not None else "no moments"


@dataclass(frozen=True)
class Case:
    """Inputs and upstream gradients of one comparison, float64."""

    x: Tensor
    u: Tensor
    g_spikes: Tensor
    g_moments: Tensor
    g_last: Tensor

    @staticmethod
    @cache
    def make(shape: tuple[int, ...] = SHAPE, seed: int = 0, moments: bool = True) -> "Case":
        channels = shape[2]
        return Case(
            normal(*shape, name="x", seed=seed, mean=0.3, std=0.6),
            normal(*shape[1:], name="u", seed=seed, std=0.3),
            normal(*shape, name="g spikes", seed=seed),
            normal(4, channels, name="g moments", seed=seed) * moments,
            normal(*shape[1:], name="g last", seed=seed),
        )


def torch_gradients(
    case: Case, neuron: Neuron, spec: MomentSpec | None, surrogate: Surrogate
) -> tuple[tuple[Tensor, Tensor | None, Tensor], tuple[Tensor, ...]]:
    """The operation's outputs, and dL/dx and dL/du for the upstream gradients of the case."""
    x, u = case.x.clone().requires_grad_(), case.u.clone().requires_grad_()
    spikes, moments, last = ops.lif(
        x,
        u,
        decay=neuron.decay,
        v_threshold=neuron.v_threshold,
        v_reset=neuron.v_reset,
        reset_by=neuron.reset_by,
        detach_reset=neuron.detach_reset,
        surrogate=surrogate,
        moments=spec,
    )
    loss = (spikes * case.g_spikes).sum() + (last * case.g_last).sum()
    if moments is not None:
        loss = loss + (moments * case.g_moments).sum()
    return (spikes, moments, last), torch.autograd.grad(loss, (x, u))


def with_reading(neuron: Neuron, spec: MomentSpec | None) -> Neuron:
    """The oracle's neuron that takes the moments of `spec`."""
    if spec is None:
        return neuron
    return replace(neuron, p=spec.p, potential=spec.potential, detach_target=spec.detach_target)


def test_the_oracle_knows_every_surrogate() -> None:
    assert set(oracle.PHI) == set(oracle.PHI_SLOPE) == set(oracle.KINKS) == set(SURROGATES)


@pytest.mark.parametrize("spec", [None, *READINGS], ids=label)
@pytest.mark.parametrize("neuron", NEURONS, ids=label)
def test_backward_is_the_reverse_recursion(neuron: Neuron, spec: MomentSpec | None) -> None:
    case = Case.make(moments=spec is not None)
    neuron = with_reading(neuron, spec)
    (spikes, moments, last), gradients = torch_gradients(
        case, neuron, spec, SURROGATES.make(neuron.surrogate)
    )
    trace = oracle.forward(case.x.numpy(), case.u.numpy(), neuron)
    upstream = case.g_spikes.numpy(), case.g_moments.numpy(), case.g_last.numpy()
    expected = oracle.backward(trace, neuron, *upstream)
    bounds = oracle.backward(trace, neuron, *upstream, bound=True)

    # The forwards round alike, operation by operation, so they agree to the last bit.
    np.testing.assert_array_equal(spikes.detach().numpy(), trace.o)
    np.testing.assert_array_equal(last.detach().numpy(), trace.u)
    if moments is not None:
        terms = case.x.numel() / case.x.shape[2]
        # |o - u|^p may differ in its last bits; a sum of n terms errs by at most n eps sum|.|.
        magnitude = oracle.forward(np.abs(case.x.numpy()), np.abs(case.u.numpy()), neuron).moments
        error = np.abs(moments.detach().numpy() - trace.moments)
        assert (error <= terms * EPS * (np.abs(trace.moments) + magnitude)).all()
    # One step back is at most 12 roundings and a surrogate or power of at most 12 ulp; the bound
    # recursion carries their magnitudes, T steps deep.
    depth = 24 * len(case.x)
    for got, want, bound in zip(gradients, expected, bounds, strict=True):
        error = np.abs(got.numpy() - want)
        assert (error <= depth * EPS * bound).all(), (error / (EPS * bound)).max()


class _Smooth(torch.autograd.Function):
    """The primitive forward and the surrogate's own derivative backward."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, surrogate: Surrogate) -> Tensor:
        ctx.surrogate = surrogate
        ctx.save_for_backward(v)
        return surrogate.primitive(v)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None]:
        (v,) = ctx.saved_tensors
        return grad_outputs[0] * ctx.surrogate.derivative(v), None


def smooth(name: str) -> Surrogate:
    """The surrogate, but it fires smoothly: what its gradients are the gradients of."""
    kind = SURROGATES[name]
    return type("Smooth", (kind,), {"__call__": lambda self, v: _Smooth.apply(v, self)})()


def away_from_kinks(neuron: Neuron, *, margin: float, moments: bool) -> tuple[Case, oracle.Trace]:
    """Two channels whose smooth run keeps every potential that far from every kink."""
    fire = oracle.PHI[neuron.surrogate]
    many = Case.make((4, 1, 400), moments=moments)
    trace = oracle.forward(many.x.numpy(), many.u.numpy(), neuron, fire=fire)
    v = np.stack([trace.u_pre, trace.potential]) - neuron.v_threshold
    kinks = [np.abs(v - kink).min((0, 1, 2)) for kink in oracle.KINKS[neuron.surrogate]]
    kinks.append(np.abs(trace.target - trace.potential).min((0, 1)))
    clear = torch.from_numpy(np.flatnonzero(np.min(kinks, 0) > margin)[:2])
    assert len(clear) == 2
    case = Case(*(value.index_select(-1, clear) for value in vars(many).values()))
    return case, oracle.forward(case.x.numpy(), case.u.numpy(), neuron, fire=fire)


def runs_at(
    xs: oracle.Array, us: oracle.Array, case: Case, base: oracle.Trace, neuron: Neuron
) -> tuple[oracle.Array, oracle.Array]:
    """The losses of K smooth runs `[K]`, and the sums of their absolute terms.

    xs: `[K, T, 1, C]`; us: `[K, 1, C]`. All runs go at once, one beside the other as channels.
    """
    runs = len(xs)

    def beside(array: oracle.Array) -> oracle.Array:
        return np.concatenate(list(array), -1)

    def again(array: oracle.Array) -> oracle.Array:
        return np.concatenate([array] * runs, -1)

    frozen = replace(base, o=again(base.o), target=again(base.target))
    fire = oracle.PHI[neuron.surrogate]
    run = oracle.forward(beside(xs), beside(us), neuron, fire=fire, frozen=frozen)
    terms = np.concatenate(
        [
            (run.o * again(case.g_spikes.numpy())).reshape(-1, runs, xs.shape[-1]),
            (run.u * again(case.g_last.numpy())).reshape(-1, runs, xs.shape[-1]),
            (run.moments * again(case.g_moments.numpy())).reshape(-1, runs, xs.shape[-1]),
        ]
    )
    return terms.sum((0, 2)), np.abs(terms).sum((0, 2))


@pytest.mark.parametrize("spec", [None, *READINGS], ids=label)
@pytest.mark.parametrize("neuron", NEURONS, ids=label)
def test_backward_is_the_slope_of_the_smooth_neuron(
    neuron: Neuron, spec: MomentSpec | None
) -> None:
    neuron = with_reading(neuron, spec)
    # A step of 2h in x moves a later membrane by less than 10 h: none comes near a kink.
    case, base = away_from_kinks(neuron, margin=0.02, moments=spec is not None)
    _, gradients = torch_gradients(case, neuron, spec, smooth(neuron.surrogate))
    gradient = torch.cat([gradients[0].flatten(), gradients[1].flatten()]).numpy()
    x, u = case.x.numpy(), case.u.numpy()
    # h: where truncation (h^2) and rounding (eps / h) of a central difference are equal.
    h = EPS ** (1 / 3)
    directions = np.eye(gradient.size)

    def difference(h: float) -> tuple[oracle.Array, oracle.Array]:
        moves = np.concatenate([directions, -directions]) * h
        xs = x + moves[:, : x.size].reshape(-1, *x.shape)
        us = u + moves[:, x.size :].reshape(-1, *u.shape)
        values, magnitudes = runs_at(xs, us, case, base, neuron)
        up, down = np.split(values, 2)
        # Up to 24 T roundings in a term (see above), and one for each term of the sum.
        rounding = (24 * len(x) + 2 * x.size) * EPS * magnitudes.max() / h
        return (up - down) / (2 * h), rounding

    (small, rounding), (large, _) = difference(h), difference(2 * h)
    # The truncation error of the small step is a third of the difference of the two.
    tolerance = np.abs(large - small) + rounding
    assert (np.abs(gradient - small) <= tolerance).all()


def test_moments_without_a_graph() -> None:
    x = normal(*SHAPE).requires_grad_()
    spec = MomentSpec(differentiable=False)
    options: dict[str, Any] = {
        "decay": 0.25, "v_threshold": 0.5, "v_reset": 0.0, "detach_reset": False,
        "surrogate": SURROGATES.make("clipped_tanh"),
    }  # fmt: skip
    spikes, moments, _ = ops.lif(x, **options, moments=spec)
    _, with_graph, _ = ops.lif(x, **options, moments=MomentSpec())
    assert moments is not None
    assert with_graph is not None
    assert spikes.requires_grad
    assert not moments.requires_grad
    torch.testing.assert_close(moments, with_graph.detach(), rtol=0, atol=0)
