"""NIR files in the libraries that read them, as far as they are installed: outputs and spikes.

A library's importer makes its own modules; a loop over time calls them with their state, and hooks
see the spikes of every layer.
"""

import io
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from rmploss.export.nir_simulator import Simulator
from rmploss.export.nir_styles import STYLES

Outputs = tuple[Tensor, dict[str, Tensor]]
"""Outputs of every step `[T, B, K]`, and the spikes of every layer by name, `[T, B, C, ...]`."""


def simulator(graph: Any, x: Tensor, dt: float) -> Outputs:
    """The definition of NIR (`nir_simulator`)."""
    return Simulator(graph, dt).run(x)


def spikingjelly(graph: Any, x: Tensor, dt: float) -> Outputs:
    """SpikingJelly 2: `import_from_nir`."""
    from spikingjelly.activation_based.nir_exchange import (  # pyright: ignore[reportMissingImports]
        import_from_nir,
    )

    return _stepped(import_from_nir(graph, dt=dt), x, graph)


def snntorch(graph: Any, x: Tensor, dt: float) -> Outputs:
    """snnTorch 1: `import_from_nir`, whose dt is 1e-4; its Flatten takes single samples."""
    from snntorch.import_nir import (  # pyright: ignore[reportMissingImports]
        import_from_nir,
    )

    model = import_from_nir(graph)

    def reset() -> None:
        neurons: Any  # they keep their membranes
        for neurons in model.modules():
            if hasattr(neurons, "reset_mem"):
                neurons.reset_mem()

    return _sample_by_sample(model, x, graph, reset)


def norse(graph: Any, x: Tensor, dt: float) -> Outputs:
    """Norse 1: `from_nir`; its Flatten takes single samples."""
    from norse.torch.utils.import_nir import (  # pyright: ignore[reportMissingImports]
        from_nir,
    )

    return _sample_by_sample(from_nir(graph, dt=dt), x, graph)


def sinabs(graph: Any, x: Tensor, dt: float) -> Outputs:
    """sinabs 3: `from_nir`, then the spikes and the reset, which its importer leaves at others.

    Its layers have the steps of a sample side by side, `[B T, C, ...]`.
    """
    import sinabs.layers as sl  # pyright: ignore[reportMissingImports]
    from sinabs.activation import (  # pyright: ignore[reportMissingImports]
        MembraneReset,
        MembraneSubtract,
        SingleSpike,
    )
    from sinabs.nir import from_nir  # pyright: ignore[reportMissingImports]

    T, B = x.shape[:2]
    model = from_nir(graph, batch_size=B)
    reset = MembraneSubtract() if graph.metadata["reset"] == "subtract" else MembraneReset()
    for layer in model.modules():
        if isinstance(layer, sl.LIFSqueeze):
            layer.spike_fn, layer.reset_fn = SingleSpike, reset
    outputs, spikes = _stepped(model, x.movedim(0, 1).flatten(0, 1)[None], graph)

    def apart(values: Tensor) -> Tensor:
        return values[0].unflatten(0, (B, T)).movedim(1, 0)

    return apart(outputs), {name: apart(found) for name, found in spikes.items()}


READERS: dict[str, tuple[str, Callable[[Any, Tensor, float], Outputs]]] = {
    "nir": ("nir", simulator),
    "spikingjelly": ("spikingjelly", spikingjelly),
    "snntorch": ("snntorch", snntorch),
    "norse": ("norse", norse),
    "sinabs": ("sinabs", sinabs),
}
"""By the name of its style: the package, and what runs a graph in it."""


def installed() -> dict[str, str]:
    """The readers that are installed, with their versions."""
    return {name: found for name, (package, _) in READERS.items() if (found := _version(package))}


def that_read(style: str) -> list[str]:
    """The installed readers of files of a style: its own alone, or all that need no own file."""
    own = STYLES[style].own_file
    return [each for each in installed() if (each == style if own else not STYLES[each].own_file)]


def run(reader: str, graph: Any, x: Tensor, dt: float) -> Outputs:
    """Run a `nir.NIRGraph` on x `[T, B, C, H, W]` in a reader."""
    with torch.no_grad(), _silence():
        return READERS[reader][1](graph, x, dt)


@contextmanager
def _silence() -> Iterator[None]:
    """Without what the readers print, log and warn of."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def _stepped(model: nn.Module, x: Tensor, graph: Any) -> Outputs:
    """The outputs and spikes of a model that takes one step and its state."""
    model.eval()
    names = [name for name, node in graph.nodes.items() if type(node).__name__ in ("LIF", "IF")]
    spikes: dict[str, list[Tensor]] = {name: [] for name in names}
    modules = dict(model.named_modules())

    def note(name: str, out: Any) -> None:
        spikes[name].append(out[0] if isinstance(out, tuple) else out)

    hooks = [
        modules[name].register_forward_hook(lambda _, __, out, name=name: note(name, out))
        for name in names
    ]
    outputs, state = [], None
    try:
        for frame in x:
            out, state = model(frame, state)  # an absent state is one at rest
            outputs.append(out)
    finally:
        for hook in hooks:
            hook.remove()
    return torch.stack(outputs), {name: torch.stack(steps) for name, steps in spikes.items()}


def _sample_by_sample(
    model: nn.Module, x: Tensor, graph: Any, reset: Callable[[], None] = lambda: None
) -> Outputs:
    """`_stepped` of a model that takes no batch; reset: is called before each sample."""
    found = []
    for sample in x.unbind(1):
        reset()
        found.append(_stepped(model, sample, graph))
    spikes = {name: torch.stack([each[1][name] for each in found], 1) for name in found[0][1]}
    return torch.stack([outputs for outputs, _ in found], 1), spikes


def _version(package: str) -> str | None:
    try:
        return version(package) if find_spec(package) else None
    except (PackageNotFoundError, ValueError):
        return None
