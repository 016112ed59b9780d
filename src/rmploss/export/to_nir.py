"""NIR (Neuromorphic Intermediate Representation): what chips and other simulators read.

A NIR neuron is a differential equation; a simulator takes Euler steps of dt:

    tau dv/dt = (v_leak - v) + r I,   spike where v > v_threshold,   then v = v_reset
    v(t) = (1 - dt/tau) v(t-1) + (r dt/tau) I(t)

With tau = dt / (1 - decay), r = gain tau/dt and v_leak = 0 that is Eq. 1. NIR fires above the
threshold and Eq. 2 at it: v_threshold is written as the largest float32 below V_th, which is the
same for every float32 membrane. NIR cannot say a soft reset, nor a membrane that begins at another
potential than 0: both are refused.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from torch import Tensor, nn

from rmploss import store
from rmploss.arguments import checked
from rmploss.errors import Problem, UserError, unknown
from rmploss.export.extras import require
from rmploss.export.graph import INPUT, RESHAPE, Graph, Node, graph_of
from rmploss.export.plain import Neurons
from rmploss.models import SpikingNetwork
from rmploss.models.amplitudes import Scale
from rmploss.neurons.lif import LIF

DT = 1e-4
"""The time of a step in seconds, as most readers assume."""


@dataclass(frozen=True)
class Style:
    """Which of the equivalent forms of a network a reader understands.

    resistance: "own": r, as above. "one": r = 1, for readers that ignore it; then v is the membrane
        times (1 - decay) / gain, and so is v_threshold.
    pooling: "mean": AvgPool2d. "convolution": a convolution of each channel with 1 / k^2, for
        readers that have no means.
    strict: readers fire above v_threshold, as NIR says; False: at it, as Eq. 2.
    leakless: readers have IF; False: what they make of it has a leak.
    branches: readers run a node when all its sources have run; False: depth first, so that a branch
        may have no nodes of its own.
    """

    resistance: Literal["own", "one"] = "own"
    pooling: Literal["mean", "convolution"] = "mean"
    strict: bool = True
    leakless: bool = True
    branches: bool = True


STYLES = {
    "nir": Style(),
    "spikingjelly": Style(strict=False),
    "snntorch": Style(leakless=False),
    "norse": Style(resistance="one", pooling="convolution", branches=False),
}
"""The form for each reader; "nir" is what the definition of NIR says."""


@checked()
def to_nir(
    net: SpikingNetwork,
    sample: Tensor,
    path: str | Path,
    *,
    reader: str = "nir",
    dt: float = DT,
    oldest: Literal["1.0.4", "1.0.8"] = "1.0.8",
) -> Path:
    """Write a network as NIR; returns the path.

    net: in evaluation the sum (or mean) over time of the file's outputs is its logits.
    sample: an input `[B, C, H, W]`, or a sequence `[T, B, C, H, W]`.
    path: of the file.
    reader: a name in `STYLES`.
    dt: the time of a step in seconds.
    oldest: the version of the package nir that must read it: 1.0.4, which sinabs and Rockpool need,
        knows no v_reset, and its files have none.

    Raises `UserError` that names every field which NIR or the reader cannot say, and without the
    package nir.
    """
    path = Path(path)
    store.write_bytes(path, nir_bytes(graph_of(net, sample), reader=reader, dt=dt, oldest=oldest))
    return path


def nir_bytes(graph: Graph, *, reader: str = "nir", dt: float = DT, oldest: str = "1.0.8") -> bytes:
    """The content of a file of `to_nir`."""
    nir, h5py = require("nir", "h5py")
    buffer = io.BytesIO()
    nir.write(buffer, nir_graph(graph, reader=reader, dt=dt))
    if oldest == "1.0.4":
        with h5py.File(buffer, "r+") as file:
            for node in file["node/nodes"].values():
                if "v_reset" in node:
                    del node["v_reset"]
    return buffer.getvalue()


def nir_graph(graph: Graph, *, reader: str = "nir", dt: float = DT) -> Any:
    """A graph as `nir.NIRGraph`."""
    (nir,) = require("nir")
    if reader not in STYLES:
        raise UserError("no such reader", [unknown("reader", reader, STYLES)])
    if not 0 < dt < math.inf:
        problem = Problem(f"dt = {dt!r}", "must be positive and finite, seconds", f"{DT}")
        raise UserError("no time of a step", [problem])
    writer = _Writer(nir, graph, STYLES[reader], dt)
    writer.write()
    if writer.problems:
        raise UserError("NIR cannot say this network", writer.problems)
    facts = {"readout": graph.readout, "T": graph.T, "dt": dt, "reader": reader}
    return nir.NIRGraph(nodes=writer.nodes, edges=writer.edges, metadata=facts)


class _Writer:
    """Collects the nodes and edges of a graph, and the problems."""

    def __init__(self, nir: Any, graph: Graph, style: Style, dt: float) -> None:
        self.nir, self.graph, self.style, self.dt = nir, graph, style, dt
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.problems: list[Problem] = []
        self.sources: dict[str, list[str]] = {INPUT: [INPUT]}
        """For the name of each value the nodes whose sum it is."""
        self.shapes = {INPUT: graph.shape} | {node.name: node.shape for node in graph.nodes}

    def write(self) -> None:
        """Write all nodes."""
        graph = self.graph
        self.nodes[INPUT] = self.nir.Input({"input": np.array(graph.shape)})
        for node in graph.nodes:
            self._write(node)
        last = graph.nodes[-1]
        self.nodes["output"] = self.nir.Output({"output": np.array(last.shape)})
        self._connect(last.name, "output")
        if not self.style.branches:
            self._require_depth_first()

    def _write(self, node: Node) -> None:
        does, name = node.does, name_of(node.name)
        self.sources[node.name] = [name]
        if does == "add" and all(isinstance(x, str) for x in node.inputs):
            sources = [place for x in node.inputs for place in self.sources[str(x)]]
            self.sources[node.name] = sources
            if len(set(sources)) < len(sources):
                self._refuse(node, "adds a value to itself")
            return
        inner = next(x for x in node.inputs if isinstance(x, str))
        if isinstance(does, LIF):
            self.nodes[name] = self._neurons(node, does)
            self._connect(inner, name)
            return
        written = self._layer(node, does, self.shapes[inner])
        if written is not None:
            self.nodes[name] = written
            self._connect(inner, name)

    def _layer(self, node: Node, does: nn.Module | str, shape: tuple[int, ...]) -> Any:
        """A layer without memory; None after a refusal. shape: of its input."""
        nir = self.nir
        if isinstance(does, nn.Conv2d):
            if does.padding_mode != "zeros" or isinstance(does.padding, str):
                return self._refuse(node, f"padding={does.padding!r}, {does.padding_mode!r}")
            bias = np.zeros(does.out_channels, np.float32) if does.bias is None else _np(does.bias)
            return nir.Conv2d(
                input_shape=shape[1:],
                weight=_np(does.weight),
                stride=does.stride,
                padding=does.padding,
                dilation=does.dilation,
                groups=does.groups,
                bias=bias,
            )
        if isinstance(does, nn.Linear):
            bias = np.zeros(does.out_features, np.float32) if does.bias is None else _np(does.bias)
            return nir.Affine(_np(does.weight), bias)
        if isinstance(does, nn.AdaptiveAvgPool2d):
            return self._pooling(node, shape, shape[1:], shape[1:], (0, 0))
        if isinstance(does, nn.AvgPool2d):
            kernel, stride, pad = map(_pair, (does.kernel_size, does.stride, does.padding))
            sides = zip(shape[1:], pad, kernel, stride, strict=True)
            cut = [(n + 2 * p - k) % s for n, p, k, s in sides]
            if does.divisor_override or (any(cut) and does.ceil_mode):
                return self._refuse(node, f"{does} of a {shape[1]}x{shape[2]} map: windows are cut")
            if any(pad) and not does.count_include_pad:
                return self._refuse(node, "count_include_pad=False with padding")
            return self._pooling(node, shape, kernel, stride, pad)
        if isinstance(does, Scale):
            height = np.broadcast_to(_np(does.height).reshape(-1), shape[:1])
            return self._by_channel(shape, height[:, None, None])
        if isinstance(does, nn.Flatten) or (does == RESHAPE and len(node.shape) == 1):
            return nir.Flatten({"input": np.array(shape)}, 0, -1)
        kind = does if isinstance(does, str) else type(does).__name__
        return self._refuse(node, f"{kind} has no node")

    def _pooling(self, node: Node, shape: Any, kernel: Any, stride: Any, pad: Any) -> Any:
        """The means over windows of a map `[C, H, W]`."""
        of = {"kernel_size": kernel, "stride": stride, "padding": pad}
        window = {key: np.array(value) for key, value in of.items()}
        if self.style.pooling == "mean":
            return self.nir.AvgPool2d(**window)
        weight = np.full((shape[0], *kernel), 1 / (kernel[0] * kernel[1]))
        return self._by_channel(shape, weight, stride, pad)

    def _by_channel(
        self, shape: Any, weight: np.ndarray, stride: Any = (1, 1), padding: Any = (0, 0)
    ) -> Any:
        """A convolution `[C, h, w]` of each channel by itself.

        Its kernel is diagonal, `[C, C, h, w]`: not all readers have groups.
        """
        C = shape[0]
        kernel = np.zeros((C, C, *weight.shape[1:]), np.float32)
        kernel[np.arange(C), np.arange(C)] = weight
        return self.nir.Conv2d(
            input_shape=tuple(shape[1:]),
            weight=kernel,
            stride=stride,
            padding=padding,
            dilation=(1, 1),
            groups=1,
            bias=np.zeros(C, np.float32),
        )

    def _neurons(self, node: Node, layer: LIF) -> Any:
        """A layer of neurons: LIF, or IF without leak."""
        neurons = Neurons(layer)
        if neurons.v_reset is None:
            self._refuse(node, "v_reset=None: the soft reset has no field", "v_reset=0.0")
        elif neurons.v_reset:
            what = "our membranes begin at it, those of NIR at 0"
            self._refuse(node, f"v_reset={neurons.v_reset}: {what}", "v_reset=0.0")
        if not layer.is_binary:
            self._refuse(node, "spikes have a height that no kernel reads")

        def constant(value: Any) -> np.ndarray:
            value = np.asarray(value, np.float64)
            value = value.reshape(-1, *[1] * (len(node.shape) - 1)) if value.ndim else value
            return np.array(np.broadcast_to(value, node.shape))

        decay, threshold = (_np(x).astype(np.float64) for x in (neurons.decay, neurons.v_threshold))
        decay = _decimal(layer.decay, decay)
        gain = _np(neurons.gain).astype(np.float64)
        if np.all(decay == 1):
            if not self.style.leakless:
                self._refuse(node, "decay=1: the reader gives IF a leak", "decay=0.99")
            return self.nir.IF(
                r=constant(gain / self.dt),
                v_threshold=constant(self._strict(threshold)),
                v_reset=constant(0.0),
            )
        if not np.all((decay >= 0) & (decay < 1)):
            self._refuse(node, f"decay={decay}: must lie in [0, 1)")
            decay = np.zeros(())
        unit = (1 - decay) / gain if self.style.resistance == "one" else np.ones(())
        return self.nir.LIF(
            tau=constant(self.dt / (1 - decay)),
            r=constant(gain / (1 - decay) * unit),
            v_leak=constant(0.0),
            v_threshold=constant(self._strict(threshold * unit)),
            v_reset=constant(0.0),
        )

    def _strict(self, threshold: np.ndarray) -> np.ndarray:
        """The largest float32 below a threshold, for readers that fire above it alone."""
        if not self.style.strict:
            return threshold
        return np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))

    def _connect(self, value: str, name: str) -> None:
        """The edges of a value into a node."""
        self.edges += [(source, name) for source in self.sources[value]]

    def _require_depth_first(self) -> None:
        """Refuse a graph in which a node comes before its sources, depth first along the edges."""
        seen: list[str] = []
        open_ = [INPUT]
        while open_:
            name = open_.pop()
            if name not in seen:
                early = [s for s, target in self.edges if target == name and s not in seen]
                if early:
                    what = f"runs before {early[0]}, which it needs: the reader goes depth first"
                    self.problems.append(Problem(name, what, "another reader"))
                seen.append(name)
                open_ += [target for source, target in self.edges if source == name][::-1]

    def _refuse(self, node: Node, what: str, fix: str = "") -> None:
        self.problems.append(Problem(node.name, what, fix))


def name_of(node: str) -> str:
    """The name of a node in a file: without dots, which readers cannot have."""
    return node.replace(".", "_")


def _decimal(written: float, used: np.ndarray) -> np.ndarray:
    """A constant in float64: the number that was written, where the float32 used is that number."""
    return np.asarray(written) if used.ndim == 0 and np.float32(written) == used else used


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _np(value: Tensor) -> np.ndarray:
    return value.detach().cpu().float().contiguous().numpy()
