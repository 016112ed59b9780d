"""ONNX with 8-bit convolutions: spikes are exact, and weights, image and currents are rounded.

    q_y = round(s_x s_w[c] / s_y (sum (q_x - z_x) q_w + q_b[c])) + z_y          QLinearConv

q_x and q_y are uint8 with zero points z, q_w is int8; the sum is exact in 32-bit integers. Spikes
and their means over 2x2, 4x4, ... squares are whole multiples of a power of two, and s_x is one:
their rounding is exact. The image's range is that of calibration samples, s_x = max |x| / 127; a
weight's that of its output channel. A current y is rounded to a 254th of the range in which all but
a thousandth of the calibration samples' lie; what lies outside becomes its end.
"""

import math
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from rmploss.export.graph import Graph
from rmploss.export.plain import Unrolled

ZERO = 128
"""The zero point of what has both signs."""
INSIDE = 0.999
"""The share of the currents that lies inside their range."""
LOOKED_AT = 100_000
"""How many currents of a layer and step the range is taken from, at most."""


@dataclass(frozen=True)
class Scale8:
    """How a value becomes uint8: q = round(x / scale) + zero."""

    scale: float
    zero: int


@dataclass(frozen=True)
class Rounding8:
    """How a convolution becomes one of 8-bit numbers: x is what it reads, y what it gives."""

    x: Scale8
    y: Scale8


def calibrate(graph: Graph, x: Tensor) -> dict[str, Rounding8]:
    """The rounding of every convolution, by the name of its node.

    x: calibration samples, of the training split, `[B, C, H, W]` or `[T, B, C, H, W]`.
    """
    network = Unrolled(graph)
    least: dict[str, float] = {}
    most: dict[str, float] = {}
    current: dict[str, float] = {}

    def note(name: str, _: nn.Module, given: tuple[Tensor, ...], y: Tensor) -> None:
        least[name] = min(least.get(name, 0.0), float(given[0].min()))
        most[name] = max(most.get(name, 0.0), float(given[0].max()))
        current[name] = max(current.get(name, 0.0), _range(y))

    hooks = [
        layer.register_forward_hook(partial(note, node.name))
        for node, layer in zip(graph.nodes, network.step.layers, strict=True)
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {
        name: Rounding8(_scale(least[name], most[name]), Scale8(current[name] / 127, ZERO))
        for name in current
    }


def _range(y: Tensor) -> float:
    """The absolute value below which the share `INSIDE` of the currents lies."""
    values = y.flatten().abs()
    return max(float(values[:: -(-len(values) // LOOKED_AT)].quantile(INSIDE)), 2**-20)


def _scale(least: float, most: float) -> Scale8:
    if least < 0:
        return Scale8(max(-least, most) / 127, ZERO)
    return Scale8(2.0 ** math.ceil(math.log2(max(most, 2**-20))) / 128, 0)


def round_weight(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """q_w int8 `[C', C, k, k]`, and the scale of each output channel, float32 `[C']`."""
    values = weight.detach().float().numpy()
    scale = np.maximum(np.abs(values).reshape(len(values), -1).max(1), 2**-20) / 127
    rounded = np.rint(values / scale.reshape(-1, 1, 1, 1))
    return rounded.astype(np.int8), scale.astype(np.float32)
