"""Neurons as functions, also those that the modules call, and the membrane."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from rmploss import LIF, MomentSpec, UserError, functional, membrane_stats
from tests import lif_oracle as oracle
from tests.given import normal
from tests.lif_oracle import Neuron

RESETS = [0.0, -0.2, None]


@pytest.mark.parametrize("v_reset", RESETS)
def test_lif_is_the_module(v_reset: float | None) -> None:
    x = normal(4, 2, 3, mean=0.2)
    spec = MomentSpec(p=1)
    spikes, moments = functional.lif(
        x, decay=0.5, v_threshold=0.4, v_reset=v_reset, surrogate="triangle", moments=spec
    )
    module = LIF(decay=0.5, v_threshold=0.4, v_reset=v_reset, surrogate="triangle")
    with membrane_stats(spec=spec) as stats:
        assert torch.equal(module(x), spikes)
    assert torch.equal(stats.layers[0].moments, moments)


@pytest.mark.parametrize("v_reset", RESETS)
def test_membrane_is_u_pre_of_every_step(v_reset: float | None) -> None:
    x = normal(4, 2, 3, mean=0.2).requires_grad_()
    u_pre = functional.membrane(x, decay=0.5, v_threshold=0.4, v_reset=v_reset)
    assert not u_pre.requires_grad
    neuron = Neuron(decay=0.5, v_threshold=0.4, v_reset=v_reset)
    trace = oracle.forward(x.detach().numpy(), np.full((2, 3), v_reset or 0.0), neuron)
    np.testing.assert_array_equal(u_pre.numpy(), trace.u_pre)


def test_a_step_returns_the_spike_and_the_membrane_after_the_reset() -> None:
    u = torch.tensor([[0.4, 0.4]], dtype=torch.float64)
    x = torch.tensor([[0.3, 0.5]], dtype=torch.float64)
    o, after = functional.lif_step(x, u)
    assert o.tolist() == [[0, 1]]
    assert after.tolist() == [[0.25 * 0.4 + 0.3, 0]]
    o, after = functional.lif_step(x, u, v_reset=None)
    assert after.tolist() == [[0.25 * 0.4 + 0.3, 0.25 * 0.4 + 0.5 - 0.5]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_membranes_are_float32_at_least(dtype: torch.dtype) -> None:
    x = normal(2, 2, 3, mean=0.2).to(dtype)
    wide = x.float()
    o, u = functional.lif_step(x[0], x[1])
    expected_o, expected_u = functional.lif_step(wide[0], wide[1])
    assert o.dtype == dtype
    assert torch.equal(o.float(), expected_o)
    assert torch.equal(u, expected_u)
    assert torch.equal(functional.membrane(x), functional.membrane(wide))
    assert torch.equal(functional.accumulate(x), wide.sum(0))


def test_accumulate_goes_on_from_a_membrane() -> None:
    x, u = normal(3, 2, 4), normal(2, 4, name="u")
    torch.testing.assert_close(functional.accumulate(x, u), u + x.sum(0), rtol=0, atol=0)
    with pytest.raises(UserError, match="cannot be carried"):
        functional.accumulate(x, u, reduction="mean")


@pytest.mark.parametrize("function", [functional.lif, functional.membrane])
def test_constants_are_checked(function: object) -> None:
    assert callable(function)
    with pytest.raises(UserError, match=r"decay = -1(?s:.*)v_threshold = 0"):
        function(normal(2, 2, 2), decay=-1, v_threshold=0)
    with pytest.raises(UserError, match="must lie below"):
        functional.lif_step(normal(2, 2), normal(2, 2), v_reset=0.5)


@pytest.mark.parametrize(
    "call",
    [
        lambda: functional.lif(torch.zeros(0, 1, 1)),
        lambda: functional.lif(torch.zeros(1, 1, 1), decay="a"),  # pyright: ignore[reportArgumentType]
        lambda: functional.lif_step(torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1)),
        lambda: functional.accumulate(torch.zeros(0, 1)),
        lambda: functional.accumulate(torch.zeros(())),
    ],
)
def test_what_is_no_sequence_of_currents_is_refused(call: Callable[[], object]) -> None:
    with pytest.raises(UserError):
        call()
