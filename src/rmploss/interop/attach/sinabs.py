"""sinabs 3: `reset_fn(spikes, state, threshold)` of a layer gets the membrane before the reset.

It runs once per time step of a sequence `[B, T, C, ...]`. A layer fires at v_mem >= spike_threshold
and rests at 0.
"""

from typing import Any

from torch import Tensor, nn

from rmploss.errors import Problem, UserError
from rmploss.interop.attach.layer import (
    ForeignLayer,
    Levels,
    library_class,
    name_of,
    replaced,
    shown,
)

ADAPTIVE = ("ALIF", "ALIFRecurrent", "ALIFSqueeze")


class Layer(ForeignLayer):
    """A layer of LIF or IAF neurons, recurrent and squeezed ones too."""

    def levels(self) -> Levels:
        """0 and the threshold."""
        return Levels(0.0, self.module.spike_threshold)

    def slow(self) -> str:
        """Its surrogate gradients are not among those of this package."""
        kind = name_of(self.module.surrogate_grad_fn)
        return f"surrogate_grad_fn = {kind}: rmploss has no such surrogate"

    def observe(self, *args: Any, **kwargs: Any) -> Any:
        """All time steps."""
        reset = self.module.reset_fn

        def seen(spikes: Tensor, state: dict[str, Tensor], threshold: Tensor) -> Any:
            self.see(state["v_mem"], spikes)
            return reset(spikes, state, threshold)

        with replaced(self.module, "reset_fn", seen):
            return self.inner(*args, **kwargs)


def find(module: nn.Module) -> Layer | None:
    """The attached layer of LIF and IAF layers; None for other modules. Raises `UserError`."""
    kind, spike = library_class(module, "sinabs"), getattr(module, "spike_fn", None)
    if spike is None:  # an ExpLeak, a pooling, ...
        return None
    if kind.__module__.startswith("sinabs.exodus"):
        fix = "the layer of the same name in sinabs.layers"
        raise UserError("", [Problem(kind.__name__, "hides its membrane in a CUDA kernel", fix)])
    if kind.__name__ in ADAPTIVE:
        what = "has a threshold that moves: a membrane has no unit in which Eq. 8 could be written"
        raise UserError("", [Problem(kind.__name__, what, "sinabs.layers.LIF")])
    layer = Layer(module)
    problems = layer.levels().problems("rest", "spike_threshold")
    single = getattr(spike, "max_num_spikes_per_bin", None) == 1
    if name_of(spike) != "SingleSpike" and not single:
        what = "may give several spikes at once, for which Eq. 8 has no target"
        problems.append(Problem(f"spike_fn = {shown(spike)}", what, "SingleSpike"))
    if problems:
        raise UserError("", problems)
    return layer
