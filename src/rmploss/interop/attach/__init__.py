"""`attach`: RMP-Loss on a network of SpikingJelly, snnTorch, Norse or sinabs, in place.

    rmploss.attach(net)
    with membrane_stats(net, rmp.spec) as stats:      # one entry per spiking layer
        logits = net(images)
    loss = cross_entropy(logits, labels) + rmp(stats, progress=(epoch + 1) / epochs)

layer.py    an attached layer: what it records, and how it is put in place and taken away
spikingjelly.py, snntorch.py, norse.py, sinabs.py    where each library has the membrane u_pre

An attached layer records u' = (u_pre - rest) / (2 (V_th - rest)), the membrane of the same neuron
in the unit of Eq. 8: 0 at rest, 1/2 at the threshold. Every regularizer is then what it is for
`LIF`. No library is imported here: its layers are recognised by the names of their classes.
"""

from collections.abc import Callable
from dataclasses import replace
from types import TracebackType

from torch import nn

from rmploss.arguments import checked, collect
from rmploss.errors import Problem, UserError
from rmploss.interop.attach.layer import ForeignLayer
from rmploss.registry import Registry
from rmploss.stats import data_parallel

__all__ = ["FRAMEWORKS", "Attached", "attach"]

FRAMEWORKS: Registry[Callable[[nn.Module], ForeignLayer | None]] = Registry(
    "framework",
    {
        "spikingjelly": "rmploss.interop.attach.spikingjelly:find",
        "snntorch": "rmploss.interop.attach.snntorch:find",
        "norse": "rmploss.interop.attach.norse:find",
        "sinabs": "rmploss.interop.attach.sinabs:find",
    },
)
"""Packages, and the function that makes an attached layer of one of their modules.

It returns None for modules that are no spiking layer, and raises `UserError` for one whose membrane
it cannot observe, with the fields that stand in the way.
"""


class Attached:
    """The attached layers of a network, by name; a context that detaches them at its end."""

    def __init__(self, layers: dict[str, ForeignLayer]) -> None:
        self.layers = layers

    def detach(self) -> None:
        """Take everything away: the modules are what they were before. Twice is no mistake."""
        for layer in self.layers.values():
            layer.remove()

    def report(self) -> str:
        """A line per layer: its name, "fast" or "observed", and the field that decided it.

        "fast": the neuron of this package runs in its place, with the loss inside of its kernel.
        "observed": the library's own runs, and the moments are taken of its membranes.
        """
        rows = [
            (name, "observed" if layer.reason() else "fast", layer.reason())
            for name, layer in self.layers.items()
        ]
        width = max(len(name) for name, _, _ in rows)
        return "\n".join(f"{name:<{width}}  {how:<8}  {why}".rstrip() for name, how, why in rows)

    def __enter__(self) -> "Attached":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.detach()


@checked(**{"": "rmploss.attach(net)", "model": "rmploss.attach(net)"})
def attach(net: nn.Module, *, fast: bool = True) -> Attached:
    """Let every spiking layer of `net` record its membrane in `membrane_stats`, in place.

    net: a network whose neurons are those of SpikingJelly 2, snnTorch 1, Norse 1 or sinabs 3.
        Its parameters, `state_dict`, states, resets and step modes stay as they are.
    fast: let the neuron of this package run in place of one that has the same equations: decay,
        input gain, threshold, reset and its gradient, surrogate. False: observe all layers.

    The calls of a layer inside one block, as in a loop over time, make one entry. Nothing is
    approximated. Raises `UserError` with every layer whose membrane cannot be observed, and if
    there is no layer to attach to; then nothing is changed.
    """
    if isinstance(net, nn.DataParallel):
        raise data_parallel()
    layers: dict[str, ForeignLayer] = {}
    problems: list[Problem] = []
    for name, module in net.named_modules():
        found: list[Problem] = []
        layer = collect(found, lambda module=module: _layer_of(module))
        problems += [replace(p, where=f"{name}.{p.where}".lstrip(".")) for p in found]
        if layer is not None:
            layers[name] = layer
    if problems:
        raise UserError("attach cannot observe these membranes; nothing was changed", problems)
    if not layers:
        raise UserError(
            f"{type(net).__name__} has no spiking layer of {', '.join(FRAMEWORKS)} to attach to. "
            "Layers of rmploss record by themselves; for neurons of your own there is "
            "rmploss.rmp_loss(u_pre, spikes)"
        )
    for name, layer in layers.items():
        layer.install(name, fast)
    return Attached(layers)


def _layer_of(module: nn.Module) -> ForeignLayer | None:
    """The attached layer for a module of a known library; None for anything else."""
    for kind in type(module).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in FRAMEWORKS:
            return FRAMEWORKS[package](module)
    return None
