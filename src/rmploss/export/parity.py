"""Parity: an exported file in the runtime that reads it, beside the network it was written from.

Compared are the logits, the most probable class, and every spike of every layer, on given inputs.
Weights that were folded and other orders of summation round differently, so a membrane next to the
threshold may fire in one and not in the other; everything behind such a spike may then differ, too.
"""

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from torch import Tensor

from rmploss.export import nir_readers, to_torch
from rmploss.export.extras import require
from rmploss.export.graph import Graph
from rmploss.export.nir_styles import STYLES
from rmploss.export.plain import Step
from rmploss.export.to_nir import DT, name_of
from rmploss.models import SpikingNetwork
from rmploss.neurons import SpikingLayer
from rmploss.ops import dense_of

Spikes = dict[str, Tensor]
"""The spikes `[T, B, C, ...]` of every layer, by its name in the network."""


@dataclass(frozen=True)
class Reference:
    """A network's own answers.

    x: the inputs, `[B, C, H, W]` or `[T, B, C, H, W]`.
    logits: `[B, K]`.
    spikes: of every layer of neurons.
    """

    x: Tensor
    logits: Tensor
    spikes: Spikes


@dataclass(frozen=True)
class Parity:
    """How a file compares with its network.

    file: its name.
    runtime: what ran it, with its version.
    samples: on how many inputs.
    max_logit_difference, largest_logit: dimensionless; absolute values.
    top1_agreement: the share of inputs with the same most probable class, in 0..1.
    spikes_that_differ: per layer; empty where the runtime shows no spikes.
    spikes: the number of values of each of these layers: steps, inputs, neurons.
    failure: why the runtime did not run the file; empty: it did.
    """

    file: str
    runtime: str
    samples: int
    max_logit_difference: float = 0.0
    largest_logit: float = 0.0
    top1_agreement: float = 0.0
    spikes_that_differ: dict[str, int] = field(default_factory=dict)
    spikes: dict[str, int] = field(default_factory=dict)
    failure: str = ""

    def line(self) -> str:
        """One line for people."""
        head = f"{self.file} in {self.runtime}: "
        if self.failure:
            return f"{head}not read: {self.failure}"
        difference, largest = f"{self.max_logit_difference:.2g}", f"{self.largest_logit:.3g}"
        text = f"logits differ by at most {difference} (of {largest})"
        if self.spikes:
            differ, count = sum(self.spikes_that_differ.values()), sum(self.spikes.values())
            text += f", {differ} of {count} spikes differ"
        agree = round(self.top1_agreement * self.samples)
        return f"{head}{text}, same class for {agree} of {self.samples}"


@torch.no_grad()
def reference(net: SpikingNetwork, x: Tensor) -> Reference:
    """Logits and spikes of a network in evaluation mode, on its device; on the CPU."""
    spikes: Spikes = {}
    hooks = [
        module.register_forward_hook(
            lambda _, __, out, name=name: spikes.__setitem__(name, dense_of(out).detach().cpu())
        )
        for name, module in net.named_modules()
        if isinstance(module, SpikingLayer)
    ]
    try:
        logits = net(x.to(next(net.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return Reference(x.cpu(), logits.float().cpu(), spikes)


def compare(
    file: str, runtime: str, given: Reference, run: Callable[[], tuple[Tensor, Spikes]]
) -> Parity:
    """Run a file and compare; an error of the runtime becomes the `failure`.

    run: returns logits and spikes, those that the runtime shows.
    """
    count = len(given.logits)
    try:
        logits, spikes = run()
    except Exception as error:  # of whatever kind another library raises
        return Parity(
            file, runtime, count, failure=f"{type(error).__name__}: {error}".splitlines()[0]
        )
    difference = (logits - given.logits).abs().max()
    same = (logits.argmax(1) == given.logits.argmax(1)).float().mean()
    return Parity(
        file,
        runtime,
        count,
        float(difference),
        float(given.logits.abs().max()),
        float(same),
        {name: int((found != given.spikes[name]).sum()) for name, found in spikes.items()},
        {name: found.numel() for name, found in spikes.items()},
    )


def of_onnx(file: str, content: bytes, graph: Graph, given: Reference) -> Parity:
    """A sequence in ONNX Runtime; the values of all neurons are added to its outputs."""
    onnx, runtime = require("onnx", "onnxruntime")

    def run() -> tuple[Tensor, Spikes]:
        model = onnx.load_from_string(content)
        places = [f"t{t}/{node.name}" for node in graph.neurons for t in range(graph.T)]
        for place in places:
            info = onnx.helper.make_tensor_value_info(place, onnx.TensorProto.FLOAT, None)
            model.graph.output.append(info)
        session = _session(runtime, model.SerializeToString())
        logits, *steps = session.run(None, {"x": given.x.numpy()})
        each = [torch.from_numpy(step) for step in steps]
        spikes = {
            node.name: torch.stack(each[i * graph.T : (i + 1) * graph.T])
            for i, node in enumerate(graph.neurons)
        }
        return torch.from_numpy(logits), spikes

    return compare(file, f"onnxruntime {runtime.__version__}", given, run)


def of_onnx_loop(file: str, content: bytes, graph: Graph, given: Reference) -> Parity:
    """A loop in ONNX Runtime, which shows no spikes."""
    (runtime,) = require("onnxruntime")

    def run() -> tuple[Tensor, Spikes]:
        inputs = {"x": given.x.numpy()}
        if graph.static:
            inputs["T"] = np.array(graph.T)
        (logits,) = _session(runtime, content).run(["logits"], inputs)
        return torch.from_numpy(logits), {}

    return compare(file, f"onnxruntime {runtime.__version__}", given, run)


def of_onnx_step(file: str, content: bytes, graph: Graph, given: Reference) -> Parity:
    """A step in ONNX Runtime, in a loop over time that carries the membranes."""
    (runtime,) = require("onnxruntime")

    def run() -> tuple[Tensor, Spikes]:
        session = _session(runtime, content)
        names = [value.name for value in session.get_inputs()]
        state = [u.numpy() for u in Step(graph).at_rest(len(given.logits))]
        outputs = []
        for frame in frames(graph, given.x):
            step, *state = session.run(None, dict(zip(names, [frame.numpy(), *state], strict=True)))
            outputs.append(torch.from_numpy(step))
        return over_time(graph, torch.stack(outputs)), {}

    return compare(file, f"onnxruntime {runtime.__version__}", given, run)


def of_nir(
    file: str, content: bytes, graph: Graph, given: Reference, reader: str, dt: float = DT
) -> Parity:
    """A NIR file, read back, in one of the readers (`nir_readers.READERS`)."""
    (nir,) = require("nir")
    names = {name_of(node.name): node.name for node in graph.neurons}

    def run() -> tuple[Tensor, Spikes]:
        check = {} if STYLES[reader].maps else {"type_check": False}
        read = nir.read(io.BytesIO(content), **check)
        outputs, spikes = nir_readers.run(reader, read, frames(graph, given.x), dt)
        return over_time(graph, outputs), {names[name]: found for name, found in spikes.items()}

    package = nir_readers.READERS[reader][0]
    what = "Euler steps of its definition, nir" if reader == "nir" else package
    return compare(file, f"{what} {version(package)}", given, run)


def of_torch(file: str, content: bytes, given: Reference) -> Parity:
    """A program of torch.export (.pt2), or TorchScript."""
    run = to_torch.run_exported if file.endswith(".pt2") else to_torch.run_scripted
    return compare(file, f"torch {version('torch')}", given, lambda: (run(content, given.x), {}))


def frames(graph: Graph, x: Tensor) -> Tensor:
    """The input of every step, `[T, B, C, H, W]`."""
    return x.unsqueeze(0).expand(graph.T, *x.shape) if graph.static else x


def over_time(graph: Graph, outputs: Tensor) -> Tensor:
    """The logits `[B, K]` of the outputs of every step `[T, B, K]`."""
    return outputs.mean(0) if graph.readout == "mean" else outputs.sum(0)


def _session(runtime: Any, content: bytes) -> Any:
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
