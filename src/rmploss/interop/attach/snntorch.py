"""snnTorch 1: `fire(mem)` of a neuron gets the membrane before the reset and returns the spikes.

It runs once per time step. With reset_delay=True the reset comes with the next step, after the
leak; with False at once; either way `fire` sees the membrane that fires, and only the tap of `fire`
is the same for all. A neuron fires at mem > threshold and rests at 0.
"""

from typing import Any

from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.interop.attach.layer import ForeignLayer, Levels, library_class, replaced, shown

FIRING = (
    *("Leaky", "Lapicque", "Synaptic", "Alpha"),
    *("RLeaky", "RSynaptic", "SLSTM", "SConv2dLSTM"),
)
"""The classes that fire through `fire`, one time step at a time."""
PARTS = ("RecurrentOneToOne",)
"""Classes of its neurons that are none."""


class Neuron(ForeignLayer):
    """A neuron of snnTorch."""

    def levels(self) -> Levels:
        """0 and the threshold, which may be learnt."""
        return Levels(0.0, self.module.threshold)

    def slow(self) -> str:
        """It runs step by step, and fires at another condition than the neuron of this package."""
        return "single time steps; fires at mem > threshold, not at equality (Eq. 2)"

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """One time step, or what the neuron makes of its input."""
        fire = self.module.fire

        def seen(mem: Tensor) -> Tensor:
            spikes = fire(mem)
            self.see(mem, spikes)
            return spikes

        with replaced(self.module, "fire", seen):
            return self.inner(*args, **kwargs)


def find(module: nn.Module) -> Neuron | None:
    """The attached layer of a neuron; None for other modules. Raises `UserError`."""
    kind = library_class(module, "snntorch")
    if not kind.__module__.startswith("snntorch._neurons") or kind.__name__ in PARTS:
        return None
    if kind.__name__ not in FIRING:
        what, fix = "does not show the membrane before the reset", f"one of {', '.join(FIRING)}"
        raise UserError("", [Problem(kind.__name__, what, fix)])
    neuron: Any = module
    layer, factor = Neuron(module), neuron.graded_spikes_factor
    problems = layer.levels().problems("rest", "threshold")
    if isinstance(factor, nn.Parameter) or not bool((factor == 1).all()):
        what = "gives spikes another height than the 1 of Eq. 8"
        problems.append(Problem(f"graded_spikes_factor = {shown(factor)}", what, "1.0"))
    if neuron.inhibition:
        what = "silences neurons above the threshold, for which Eq. 8 has no target"
        problems.append(Problem("inhibition = True", what, "False"))
    if neuron.state_quant:
        what = "rounds the membrane a second time inside of fire"
        problems.append(Problem("state_quant", what, "False"))
    if problems:
        raise UserError("", problems)
    return layer
