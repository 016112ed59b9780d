"""What a NIR file computes by the definition of its nodes, in Euler steps of dt: the file's oracle.

    v <- v + dt/tau (v_leak - v + r I)     LIF
    v <- v + dt r I                        IF
    o = 1 where v > v_threshold;  v = v_reset where o

nir 1.0.4 has no v_reset, and its text says subtraction; our files say in their metadata what is
meant, and those that this simulator reads mean 0.

Several edges into a node are summed.
"""

from graphlib import TopologicalSorter
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.errors import Problem, UserError


class Simulator:
    """Runs a `nir.NIRGraph` in float32, step by step.

    graph: without cycles.
    dt: the time of a step in seconds.
    """

    def __init__(self, graph: Any, dt: float) -> None:
        self.graph, self.dt = graph, dt
        self.sources: dict[str, list[str]] = {name: [] for name in graph.nodes}
        for source, target in graph.edges:
            self.sources[target].append(source)
        self.order = [*TopologicalSorter(self.sources).static_order()]
        self.u: dict[str, Tensor] = {}

    def run(self, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Outputs of every step `[T, B, K]`, and the spikes of every neuron `[T, B, C, ...]`.

        x: `[T, B, C, H, W]`.
        """
        self.u = {}
        outputs, spikes = [], dict[str, list[Tensor]]()
        for frame in x:
            values: dict[str, Tensor] = {}
            for name in self.order:
                given = [values[source] for source in self.sources[name]]
                total = torch.stack(given).sum(0) if given else frame
                values[name] = self._node(name, self.graph.nodes[name], total)
                if type(self.graph.nodes[name]).__name__ in ("LIF", "IF"):
                    spikes.setdefault(name, []).append(values[name])
            outputs.append(values["output"])
        return torch.stack(outputs), {name: torch.stack(steps) for name, steps in spikes.items()}

    def _node(self, name: str, node: Any, x: Tensor) -> Tensor:
        match type(node).__name__:
            case "Input" | "Output":
                return x
            case "Conv2d":
                return F.conv2d(
                    x,
                    _single(node.weight),
                    _single(node.bias),
                    _pair(node.stride),
                    _pair(node.padding),
                    _pair(node.dilation),
                    int(node.groups),
                )
            case "Affine":
                return F.linear(x, _single(node.weight), _single(node.bias))
            case "AvgPool2d":
                return F.avg_pool2d(x, **_window(node))
            case "SumPool2d":
                window = _window(node)
                return F.avg_pool2d(x, **window, divisor_override=1)
            case "Flatten":
                return x.flatten(1)
            case "LIF" | "IF":
                return self._fire(name, node, x)
        raise UserError("not simulated", [Problem(name, f"is a {type(node).__name__}")])

    def _fire(self, name: str, node: Any, x: Tensor) -> Tensor:
        """One step of neurons; the constants are combined in float64."""
        step = self.dt / node.tau if hasattr(node, "tau") else np.asarray(self.dt)
        leak = _single(1 - step if hasattr(node, "tau") else np.ones(()))
        v = self.u.get(name)
        u_pre = _single(node.r * step) * x
        if v is not None:
            u_pre = leak * v + u_pre
        o = u_pre > _single(node.v_threshold)
        self.u[name] = torch.where(o, _single(getattr(node, "v_reset", 0.0)), u_pre)
        return o.float()


def _single(value: Any) -> Tensor:
    return torch.from_numpy(np.asarray(value, np.float32))


def _window(node: Any) -> dict[str, Any]:
    """Kernel, stride and padding of a pooling."""
    return {name: _pair(getattr(node, name)) for name in ("kernel_size", "stride", "padding")}


def _pair(value: Any) -> tuple[int, int]:
    first, second = np.broadcast_to(np.asarray(value), (2,)).tolist()
    return int(first), int(second)
