"""NIR (Neuromorphic Intermediate Representation): what chips and other simulators read.

A NIR neuron is a differential equation; a simulator takes Euler steps of dt:

    tau dv/dt = (v_leak - v) + r I,   spike where v > v_threshold,   then v = v_reset
    v(t) = (1 - dt/tau) v(t-1) + (r dt/tau) I(t)

With tau = dt / (1 - decay), r = gain tau/dt and v_leak = 0 that is Eq. 1. NIR fires above the
threshold and Eq. 2 at it: v_threshold is written as the largest float32 below V_th, which is the
same for every float32 membrane. NIR cannot say a soft reset, nor a membrane that begins at another
potential than 0: both are refused. nir 1.0.4 has no field for the reset at all; its text says
subtraction, its readers differ, and the file's metadata say which one is meant (`reset`).
"""

import inspect
import io
import math
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from rmploss import store
from rmploss.arguments import checked
from rmploss.errors import Problem, UserError, unknown
from rmploss.export import nir_path
from rmploss.export.extras import require
from rmploss.export.graph import INPUT, RESHAPE, Graph, Node, graph_of
from rmploss.export.nir_styles import STYLES, Style
from rmploss.export.plain import Neurons
from rmploss.models import SpikingNetwork
from rmploss.models.amplitudes import Scale
from rmploss.neurons.lif import LIF

DT = 1e-4
"""The time of a step in seconds, as most readers assume."""


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
    reader: a name in `nir_styles.STYLES`.
    dt: the time of a step in seconds.
    oldest: the version of the package nir that must read it: 1.0.4 knows no v_reset, and its files
        have none. Those for sinabs, which needs it, are always for 1.0.4.

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
    if "1.0.4" in (oldest, STYLES[reader].oldest):
        with h5py.File(buffer, "r+") as file:
            for node in file["node/nodes"].values():
                if "v_reset" in node:
                    del node["v_reset"]
    return buffer.getvalue()


def _writer_of_resets() -> ModuleType:
    """The package nir. Raises `UserError` for one that knows no v_reset, as sinabs installs."""
    (nir,) = require("nir")
    if "v_reset" not in inspect.signature(nir.LIF).parameters:
        what = f"{version('nir')} knows no v_reset; sinabs and Rockpool install it"
        fix = (
            "pip install -U 'nir>=1.0.8', in an environment without them (`--nir 1.0.4` writes it)"
        )
        raise UserError("the package nir is too old to write with", [Problem("nir", what, fix)])
    return nir


def nir_graph(graph: Graph, *, reader: str = "nir", dt: float = DT) -> Any:
    """A graph as `nir.NIRGraph`."""
    nir = _writer_of_resets()
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
    facts["reset"] = "subtract" if "subtract" in writer.resets else "zero"
    return nir.NIRGraph(
        nodes=writer.nodes,
        edges=writer.edges,
        metadata=facts,
        type_check=STYLES[reader].maps,  # a constant [1] is no map
    )


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
        self.resets: set[str] = set()
        """How the neurons reset."""

    def write(self) -> None:
        """Write all nodes."""
        graph = self.graph
        self.nodes[INPUT] = self.nir.Input({"input": np.array(graph.shape)})
        for node in graph.nodes:
            self._write(node)
        last = graph.nodes[-1]
        self.nodes["output"] = self.nir.Output({"output": np.array(last.shape)})
        self._connect(last.name, "output")
        if not self.style.branches and not self.problems:
            self._make_path()

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
        self._check_reset(node, neurons)
        if not layer.is_binary:
            self._refuse(node, "spikes have a height that no kernel reads")
        shape = node.shape if self.style.maps else (1,)

        def constant(value: Any) -> np.ndarray:
            value = np.asarray(value, np.float64)
            if value.ndim and not self.style.maps:
                if np.ptp(value):
                    self._refuse(node, "constants of each channel: the reader takes one of a layer")
                value = value[:1]
            value = value.reshape(-1, *[1] * (len(shape) - 1)) if value.ndim else value
            return np.array(np.broadcast_to(value, shape))

        decay, threshold = (_np(x).astype(np.float64) for x in (neurons.decay, neurons.v_threshold))
        decay = _decimal(layer.decay, decay)
        gain = _np(neurons.gain).astype(np.float64)
        if np.all(decay == 1):
            if self.style.without_leak:
                self._refuse(node, f"decay=1: {self.style.without_leak}", "decay=0.99")
            return self.nir.IF(
                r=constant(gain / self.dt),
                v_threshold=constant(self._strict(threshold)),
                v_reset=constant(0.0),
            )
        if not np.all((decay >= 0) & (decay < 1)):
            self._refuse(node, f"decay={decay}: must lie in [0, 1)")
            decay = np.zeros(())
        unit = {"own": np.ones(()), "one": (1 - decay) / gain, "ignored": 1 / gain}
        scaled = unit[self.style.resistance]
        return self.nir.LIF(
            tau=constant(self._tau(node, decay)),
            r=constant(gain / (1 - decay) * scaled),
            v_leak=constant(0.0),
            v_threshold=constant(self._strict(threshold * scaled)),
            v_reset=constant(0.0),
        )

    def _check_reset(self, node: Node, neurons: Neurons) -> None:
        """Refuse a reset that the reader has no field for, and two kinds of it in one file."""
        soft = neurons.v_reset is None
        if soft and not self.style.soft_reset:
            self._refuse(node, "v_reset=None: the soft reset has no field", "v_reset=0.0")
        elif soft and neurons.reset_by is not None:
            self._refuse(node, "the reset subtracts another number than the threshold")
        elif neurons.v_reset:
            what = "our membranes begin at it, those of NIR at 0"
            self._refuse(node, f"v_reset={neurons.v_reset}: {what}", "v_reset=0.0")
        self.resets.add("subtract" if soft else "zero")
        if len(self.resets) == 2 and not self.problems:
            self._refuse(node, "resets otherwise than the layers before: a file has one reset")

    def _tau(self, node: Node, decay: np.ndarray) -> np.ndarray:
        """The time constant: in seconds, or in steps for an exponential decay."""
        if self.style.decay == "euler":
            return self.dt / (1 - decay)
        wanted = torch.from_numpy(np.asarray(decay, np.float32))
        with np.errstate(divide="ignore"):
            tau = torch.from_numpy(np.asarray(-1 / np.log(decay), np.float32))
        if not torch.equal(torch.exp(-1 / tau), wanted):
            self._refuse(node, f"decay={decay}: no float32 tau has exp(-1/tau) = {decay}", "0.25")
        return tau.numpy()

    def _strict(self, threshold: np.ndarray) -> np.ndarray:
        """The largest float32 below a threshold, for readers that fire above it alone."""
        if not self.style.strict:
            return threshold
        return np.nextafter(threshold.astype(np.float32), np.float32(-np.inf))

    def _connect(self, value: str, name: str) -> None:
        """The edges of a value into a node."""
        self.edges += [(source, name) for source in self.sources[value]]

    def _make_path(self) -> None:
        """Add the layers of zeros with which a reader that goes depth first meets all sources."""
        ends = {INPUT: INPUT, "output": "output"} | {name_of(x): x for x in self.shapes}
        last = self.graph.nodes[-1].shape
        out = {name: self.shapes.get(ends[name], last) for name in self.nodes}
        given = dict(out)
        for source, target in self.edges:
            given[target] = out[source]
        for zeros in nir_path.gaps([*self.nodes], self.edges, given, out):
            made = self._zeros(zeros)
            if made is None:
                what = f"runs before {zeros.before} is known: the reader goes depth first"
                self.problems.append(Problem(zeros.after, what, "another reader"))
                continue
            self.edges += [(zeros.before, zeros.name), (zeros.name, zeros.after)]
            place = [*self.nodes].index(zeros.after)
            items = [*self.nodes.items()]
            self.nodes = dict([*items[:place], (zeros.name, made), *items[place:]])
        self.edges = nir_path.along([*self.nodes], self.edges)

    def _zeros(self, zeros: nir_path.Zeros) -> Any:
        """The node of a layer of zeros; None between a map and a vector."""
        sides = len(zeros.shape), len(zeros.into)
        channels = zeros.into[0], zeros.shape[0]
        if sides == (1, 1):
            return self.nir.Affine(
                np.zeros(channels, np.float32), np.zeros(channels[0], np.float32)
            )
        if sides != (3, 3):
            return None
        window = nir_path.windows(zeros)
        return self.nir.Conv2d(
            input_shape=zeros.shape[1:],
            weight=np.zeros((*channels, *window["kernel"]), np.float32),
            stride=window["stride"],
            padding=window["padding"],
            dilation=(1, 1),
            groups=1,
            bias=np.zeros(channels[0], np.float32),
        )

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
