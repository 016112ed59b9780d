"""The output neuron (Eq. 4): sum or mean over time, carried or not."""

import pytest
import torch

from rmploss import Accumulator, UserError
from tests.given import normal


def test_the_sum_is_the_membrane_after_the_last_step() -> None:
    x = normal(5, 2, 3)
    u = torch.zeros(2, 3, dtype=torch.float64)
    for x_t in x:
        u = u + x_t
    torch.testing.assert_close(Accumulator()(x), u, rtol=1e-15, atol=1e-15)
    torch.testing.assert_close(Accumulator(reduction="mean")(x), u / 5, rtol=1e-15, atol=1e-15)


def test_carried_steps_are_the_sequence() -> None:
    x = normal(5, 2, 3)
    carried = Accumulator(carry_state=True)
    for _ in range(2):
        carried.reset_state()
        outputs = [carried.step(x_t) for x_t in x]
        torch.testing.assert_close(outputs[-1], Accumulator()(x), rtol=1e-15, atol=1e-15)
        torch.testing.assert_close(outputs[1], x[0] + x[1], rtol=0, atol=0)


def test_a_sum_that_is_carried_says_that_its_gradient_is_not() -> None:
    carried, x = Accumulator(carry_state=True), normal(5, 2, 3).requires_grad_()
    carried.step(x[0])
    with pytest.warns(UserWarning, match="functional.accumulate"):
        carried.step(x[1])


def test_without_carried_state_nothing_is_left_behind() -> None:
    readout, x = Accumulator(), normal(5, 2, 3)
    assert torch.equal(readout(x), readout(x))
    assert readout.u is None


def test_what_cannot_be() -> None:
    with pytest.raises(UserError, match="must be one of 'sum', 'mean'"):
        Accumulator(reduction="max")  # pyright: ignore[reportArgumentType]
    with pytest.raises(UserError, match=r'cannot be carried(?s:.*)"sum"'):
        Accumulator(reduction="mean", carry_state=True)
    with pytest.raises(UserError, match="carry_state=True"):
        Accumulator().step(normal(2, 3))
