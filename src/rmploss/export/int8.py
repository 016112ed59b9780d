"""ONNX with 8-bit weights: spikes have 8 bits already, only weights and the image are rounded.

    y = s_x s_w[c] sum (q_x - z_x) (q_w - z_w) + b[c]       ConvInteger, exact in 32-bit integers

q_x, q_w are uint8 and z their zero points. Spikes and their means over 2x2, 4x4, ... squares are
whole multiples of a power of two, and s_x is one: their rounding is exact. The image's range is
that of calibration samples, s_x = max |x| / 127; a weight's that of its output channel.
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


@dataclass(frozen=True)
class Scale8:
    """How the input of a layer becomes uint8: q = round(x / scale) + zero."""

    scale: float
    zero: int


def input_scales(graph: Graph, x: Tensor) -> dict[str, Scale8]:
    """The rounding of the input of every convolution, by the name of its node.

    x: calibration samples, of the training split, `[B, C, H, W]` or `[T, B, C, H, W]`.
    """
    network = Unrolled(graph)
    seen: dict[str, tuple[float, float]] = {}

    def look(name: str, given: Tensor) -> None:
        least, most = seen.get(name, (0.0, 0.0))
        seen[name] = min(least, float(given.min())), max(most, float(given.max()))

    def note(name: str, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        look(name, given[0])

    hooks = [
        layer.register_forward_pre_hook(partial(note, node.name))
        for node, layer in zip(graph.nodes, network.step.layers, strict=True)
        if isinstance(layer, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: _scale(least, most) for name, (least, most) in seen.items()}


def _scale(least: float, most: float) -> Scale8:
    if least < 0:
        return Scale8(max(-least, most) / 127, ZERO)
    return Scale8(2.0 ** math.ceil(math.log2(max(most, 2**-20))) / 128, 0)


def round_weight(weight: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """q_w uint8 `[C', C, k, k]` with zero point `ZERO`, and the scale of each output channel."""
    values = weight.detach().float().numpy()
    scale = np.maximum(np.abs(values).reshape(len(values), -1).max(1), 2**-20) / 127
    rounded = np.rint(values / scale.reshape(-1, 1, 1, 1)) + ZERO
    return rounded.astype(np.uint8), scale.astype(np.float32)
