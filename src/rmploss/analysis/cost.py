"""The cost of one inference: synaptic operations, and an estimate of their energy.

An input of 1 costs one accumulation per synapse (the weight is added), any other nonzero input a
multiplication with accumulation. Convolutions and linear layers are counted exactly: at a border an
input has fewer synapses. The energy is each count times that of a float32 operation in 45 nm CMOS
(Horowitz, ISSCC 2014), as is usual in the field. Memory and neurons are left out, so the estimate
ranks networks but does not predict a chip.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.lifecycle import evaluating

PJ_ACCUMULATION, PJ_MULTIPLICATION = 0.9, 4.6
"""The energy in pJ of a float32 addition, and of a multiplication with addition."""


@dataclass(frozen=True)
class Cost:
    """The mean operations of one inference; multiplications include their additions."""

    accumulations: float
    multiplications: float

    @property
    def microjoules(self) -> float:
        """The estimated energy of one inference, in microjoules."""
        picojoules = self.accumulations * PJ_ACCUMULATION + self.multiplications * PJ_MULTIPLICATION
        return picojoules / 1e6


def inference_cost(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Cost:
    """The mean cost over all batches in evaluation mode; afterwards `net` is as before.

    net: its convolutions and linear layers are counted.
    batches: (x `[B, C, H, W]` or `[T, B, C, H, W]`, labels `[B]`).
    """
    accumulations = multiplications = 0.0
    samples = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal accumulations, multiplications
        x = inputs[0].detach()
        accumulations += _synapses(layer, x == 1)
        multiplications += _synapses(layer, (x != 0) & (x != 1))

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        device = next(net.parameters()).device
        with evaluating(net), torch.no_grad():
            for x, labels in batches:
                if len(labels):
                    net(x.to(device))
                    samples += len(labels)
    finally:
        for hook in hooks:
            hook.remove()
    samples = max(samples, 1)
    return Cost(accumulations / samples, multiplications / samples)


def _synapses(layer: nn.Module, x: Tensor) -> float:
    """The number of synapses of the marked inputs; x: boolean, of the input's shape."""
    active = x.to(torch.float32)
    if isinstance(layer, nn.Linear):
        return float(active.sum(dtype=torch.float64)) * layer.out_features
    assert isinstance(layer, nn.Conv2d | nn.Conv3d)
    groups = layer.groups
    per_group = active.unflatten(1, (groups, -1)).sum(2)  # [N, groups, ...]
    convolve = F.conv3d if isinstance(layer, nn.Conv3d) else F.conv2d
    ones = torch.ones(groups, 1, *layer.kernel_size, device=x.device)
    assert not isinstance(layer.padding, str)
    reached: Tensor = convolve(
        per_group, ones, None, layer.stride, layer.padding, layer.dilation, groups=groups
    )
    return float(reached.sum(dtype=torch.float64)) * (layer.out_channels // groups)
