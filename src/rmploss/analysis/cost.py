"""What one inference costs: synaptic operations, and an estimate of their energy.

A 1 that reaches a synapse is one accumulation, as the weight is added; any other number that is not
0 is a multiplication, too. Convolutions and linear layers are counted, exactly: at the border a
value reaches fewer outputs. The energy is the sum of both kinds times what a 32-bit operation
takes in 45 nm CMOS (Horowitz, ISSCC 2014), as papers of this field reckon: memory and the neurons
themselves are left out, so it ranks networks and does not predict a chip.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PJ_ACCUMULATION, PJ_MULTIPLICATION = 0.9, 4.6
"""Picojoules of a float32 addition, and of a multiplication with addition."""


@dataclass(frozen=True)
class Cost:
    """Operations of the inference of one input, on average."""

    accumulations: float
    multiplications: float

    @property
    def microjoules(self) -> float:
        """The estimated energy of one inference."""
        picojoules = self.accumulations * PJ_ACCUMULATION + self.multiplications * PJ_MULTIPLICATION
        return picojoules / 1e6


def inference_cost(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Cost:
    """The mean cost over all batches, in evaluation mode; the network comes back as it was.

    batches: (x `[B, C, H, W]` or `[T, B, C, H, W]`, labels `[B]`).
    """
    spikes = others = 0.0
    samples = 0

    def count(layer: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        nonlocal spikes, others
        x = inputs[0].detach()
        spikes += _reached(layer, x == 1)
        others += _reached(layer, (x != 0) & (x != 1))

    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.Linear)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    training = net.training
    net.eval()
    try:
        device = next(net.parameters()).device
        with torch.no_grad():
            for x, labels in batches:
                if len(labels):
                    net(x.to(device))
                    samples += len(labels)
    finally:
        net.train(training)
        for hook in hooks:
            hook.remove()
    return Cost(spikes / max(samples, 1), others / max(samples, 1))


def _reached(layer: nn.Module, x: Tensor) -> float:
    """How many synapses the marked values of the input reach; x: boolean, of its shape."""
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
