"""Norse 1: `activation(x, state, ..., p, dt)` of a module computes one time step.

It returns the spikes and the membrane after the reset, so the one before it is computed once more:

    lif_box_feed_forward_step    v + dt / tau_mem (v_leak - v + x)
    lif_feed_forward_step        v + dt / tau_mem (v_leak - v + i + x)
    lif_step                     v + dt / tau_mem (v_leak - v + i + W x + R z)
    iaf_feed_forward_step        v + x

A neuron fires at v > v_th; it rests at v_leak, without a leak at v_reset.
"""

from collections.abc import Callable
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.interop.attach.layer import ForeignLayer, Levels, library_class, name_of, replaced


def _box(x: Tensor, state: Any, p: Any, dt: float) -> Tensor:
    return state.v + dt * p.tau_mem_inv * (x + p.v_leak - state.v)


def _lif(x: Tensor, state: Any, p: Any, dt: float) -> Tensor:
    return state.v + dt * p.tau_mem_inv * (p.v_leak - state.v + (state.i + x))


def _recurrent(x: Tensor, state: Any, W: Tensor, R: Tensor, p: Any, dt: float) -> Tensor:
    linear = torch.nn.functional.linear
    current = state.i + linear(x, W) + linear(state.z, R)
    return state.v + dt * p.tau_mem_inv * (p.v_leak - state.v + current)


def _iaf(x: Tensor, state: Any, p: Any, dt: float) -> Tensor:
    return state.v + x


CHARGE: dict[str, Callable[..., Tensor]] = {
    "lif_box_feed_forward_step": _box,
    "lif_feed_forward_step": _lif,
    "lif_step": _recurrent,
    "iaf_feed_forward_step": _iaf,
}
"""The membrane before the reset, by the name of the activation."""
NOT_SPIKING = ("LI", "LICell", "LIBoxCell")


class Neuron(ForeignLayer):
    """A cell, or a module that runs one over time."""

    def levels(self) -> Levels:
        """v_leak, or v_reset without a leak, and v_th; they may be learnt."""
        p = self.module.p
        return Levels(p.v_leak if hasattr(p, "v_leak") else p.v_reset, p.v_th)

    def slow(self) -> str:
        """It fires at another condition than the neuron of this package."""
        return "fires at v > v_th, not at equality (Eq. 2)"

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """One time step of a cell, all of a sequence."""
        step = self.module.activation
        charge = CHARGE[step.__name__]

        def seen(*inputs: Any) -> Any:
            spikes, state = step(*inputs)
            self.see(charge(*inputs), spikes)
            return spikes, state

        with (
            replaced(self.module, "activation", seen),
            replaced(self.module, "activation_sparse", self._refuse_sparse),
        ):
            return self.inner(*args, **kwargs)

    def _refuse_sparse(self, *_: Any) -> NoReturn:
        problem = Problem(self.layer_name, "has a sparse input", "x.to_dense()")
        raise UserError("attached Norse layers need dense inputs", [problem])


def find(module: nn.Module) -> Neuron | None:
    """The attached layer of a neuron; None for other modules. Raises `UserError`."""
    step = getattr(module, "activation", None)
    kind = library_class(module, "norse")
    if step is None and not kind.__name__.startswith(("CobaLIF", "LIFCorrelation")):
        return None
    if kind.__name__ in NOT_SPIKING:
        return None
    if step is None or name_of(step) not in CHARGE:
        what = "shows no membrane before the reset"
        fix = f"one of {', '.join(CHARGE)}"
        field = kind.__name__ if step is None else f"activation = {name_of(step)}"
        raise UserError("", [Problem(field, what, fix)])
    layer = Neuron(module)
    problems = layer.levels().problems("v_leak", "v_th")
    if problems:
        raise UserError("", problems)
    return layer
