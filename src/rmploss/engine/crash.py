"""What was not finite: a step run again with hooks on every layer, and the record of it.

    crash/step-00001234.json    batch, losses, the first bad layer, histograms; sealed by a SHA-256

A step that was not finite has changed nothing, so it can be run again. Histograms count values by
the decade of |x|: they add up over the ranks, and show what grew as well as what broke.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rmploss import store
from rmploss.engine.checkpoint import seal
from rmploss.engine.distributed import World
from rmploss.neurons import SpikingLayer
from rmploss.ops import dense_of

FOLDER = "crash"
FORMAT = 1
LOW, HIGH = -9, 8
"""The decades of the first and last bin: all below 1e-8, and all from 1e8 on."""
BINS = ("0", *(f"1e{n}" for n in range(LOW, HIGH + 1)), "inf", "nan")
"""The names of the bins: 0, then the decades by their lower ends, then what is not finite."""
KINDS: tuple[str, ...] = ("input", "state", "output", "membrane", "loss", "gradient")
"""The images, parameters and buffers before the step, outputs of layers, membranes, the two losses,
gradients of parameters."""
LOSSES: tuple[str, ...] = ("classification", "regularizer")


@dataclass(frozen=True)
class Suspect:
    """Where the first number was found that is not finite.

    what: one of `KINDS`.
    name: of the layer or tensor.
    kind: the class of the layer, or "".
    nan, infinite, elements: how many of how many.
    """

    what: str
    name: str
    kind: str
    nan: int
    infinite: int
    elements: int

    def words(self) -> str:
        """The suspect in words: "the output of conv1 (SpikeConv2d)"."""
        kind = f" ({self.kind})" if self.kind else ""
        what = {"input": "the images", "loss": f"the {self.name} loss"}.get(self.what)
        what = what or f"the {self.what} of {self.name}{kind}"
        return f"{what}: {self.nan:,} NaN and {self.infinite:,} infinite of {self.elements:,}"


def histogram(x: Tensor) -> Tensor:
    """How many values of x fall into each of `BINS`, float64 `[len(BINS)]` on the CPU.

    x: any shape and floating type.
    """
    flat = x.detach().flatten()
    flat = (flat if flat.dtype == torch.float64 else flat.float()).abs()
    nan, infinite, zero = flat.isnan(), flat.isinf(), flat == 0
    rest = flat[~(nan | infinite | zero)]
    decades = rest.log10().floor().clamp(LOW, HIGH).long() - LOW
    counts = torch.bincount(decades, minlength=HIGH - LOW + 1)
    ends = torch.stack([zero.sum(), infinite.sum(), nan.sum()])
    return torch.cat([ends[:1], counts, ends[1:]]).double().cpu()


class Trace:
    """The histograms of a network while it runs, by kind and name; made for one forward.

    net: its modules are watched inside `watch`.
    """

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.layers = {name: m for name, m in net.named_modules() if name and _is_layer(m)}
        parameters = [name for name, _ in net.named_parameters()]
        rows: dict[str, list[str]] = {
            "input": ["images"],
            "state": [*parameters, *(name for name, _ in net.named_buffers())],
            "output": [*self.layers],
            "membrane": [*self.layers],
            "loss": [*LOSSES],
            "gradient": parameters,
        }
        # All rows from the beginning, so that the ranks have the same to add up.
        self.counts = {
            kind: {name: torch.zeros(len(BINS), dtype=torch.float64) for name in rows[kind]}
            for kind in KINDS
        }
        self.order: list[str] = []
        """The layers, in the order of their first calls."""

    def add(self, kind: str, name: str, x: Tensor) -> None:
        """Count the values of a tensor; integers are left out."""
        if x.is_floating_point():
            self.counts[kind][name] += histogram(x)

    def add_before(self, images: Tensor) -> None:
        """Count the images, parameters and buffers."""
        self.add("input", "images", images)
        for name, x in (*self.net.named_parameters(), *self.net.named_buffers()):
            self.add("state", name, x)

    def add_after(self, losses: Mapping[str, float]) -> None:
        """Count the losses, by their names in `LOSSES`, and the gradients of the parameters."""
        for name, x in losses.items():
            self.add("loss", name, torch.tensor(x))
        for name, p in self.net.named_parameters():
            if p.grad is not None:
                self.add("gradient", name, p.grad)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Count the outputs of the layers, and the membranes of the spiking ones, of a forward."""
        handles = [m.register_forward_hook(self._hook(name)) for name, m in self.layers.items()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _hook(self, name: str) -> Any:
        def look(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
            if name not in self.order:
                self.order.append(name)
            with torch.no_grad():
                self.add("output", name, dense_of(output))
                if isinstance(module, SpikingLayer) and arguments:
                    self.add("membrane", name, module.membrane(dense_of(arguments[0])))

        return look

    def sum_over(self, world: World) -> None:
        """Add up the counts of all ranks; all of them must call this."""
        flat = [row for kind in KINDS for row in self.counts[kind].values()]
        total = iter(world.all_reduce_sum(torch.stack(flat)))
        for kind in KINDS:
            self.counts[kind] = dict(zip(self.counts[kind], total, strict=False))

    def first_bad(self) -> Suspect | None:
        """Where the first number is that is not finite, in the order of the computation.

        A gradient comes from the last layer: there the first bad one is looked for.
        """
        place = {name: index for index, name in enumerate(self.order)}
        last_first = sorted(
            self.counts["gradient"], key=lambda n: -place.get(n.rpartition(".")[0], -1)
        )
        rows = [
            *(("input", name) for name in self.counts["input"]),
            *(("state", name) for name in self.counts["state"]),
            *((kind, name) for name in self.order for kind in ("membrane", "output")),
            *(("loss", name) for name in self.counts["loss"]),
            *(("gradient", name) for name in last_first),
        ]
        for what, name in rows:
            row = self.counts[what][name]
            infinite, nan = (int(count) for count in row[-2:].tolist())
            if infinite or nan:
                layer = self.layers.get(name)
                kind = type(layer).__name__ if layer is not None else ""
                return Suspect(what, name, kind, nan, infinite, int(row.sum()))
        return None

    def to_json(self) -> dict[str, dict[str, dict[str, int]]]:
        """The histograms: kind -> name -> bin -> count; empty bins and rows are left out."""
        return {
            kind: {name: _filled(row) for name, row in self.counts[kind].items() if row.any()}
            for kind in KINDS
        }


def write(
    path: Path,
    step: int,
    fields: Mapping[str, Any],
    suspect: Suspect | None,
    trace: Trace,
    losses: Mapping[str, float],
) -> str:
    """Write the record of a step that was not finite; returns its name in the run folder.

    path: the run folder.
    step: the number of completed steps before it.
    fields: where it was: epoch, batch, samples, rate.
    suspect: from `Trace.first_bad`; None: the second time all was finite.
    trace, losses: of the second time.
    """
    name = f"{FOLDER}/step-{step:08d}.json"
    content = {
        "format": FORMAT,
        "step": step,
        **fields,
        "first_bad": None if suspect is None else asdict(suspect),
        "losses": {n: x if math.isfinite(x) else str(x) for n, x in losses.items()},
        "layers": {n: type(trace.layers[n]).__name__ for n in trace.order},
        "histograms": trace.to_json(),
    }

    def save() -> None:
        store.make_folder(path / FOLDER)
        store.write_bytes(path / name, seal(content))

    store.try_twice(save)
    return name


def records(path: Path) -> Sequence[Path]:
    """The crash records of a run folder."""
    return sorted((path / FOLDER).glob("step-*.json"))


def _filled(row: Tensor) -> dict[str, int]:
    return {name: int(n) for name, n in zip(BINS, row.tolist(), strict=True) if n}


def _is_layer(module: nn.Module) -> bool:
    return isinstance(module, SpikingLayer) or not any(True for _ in module.children())
