"""Small networks whose layers fire, for tests of formats."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from rmploss.export.graph import Graph
from rmploss.models import SpikingNetwork, create
from rmploss.neurons import IF, LIF
from rmploss.neurons.diet import Diet
from rmploss.neurons.inflor import InfLoR
from rmploss.neurons.plif import PLIF
from rmploss.neurons.real import RealSpike
from tests.given import normal

NEURONS: dict[str, Callable[..., nn.Module]] = {
    "LIF": LIF,
    "IF": IF,
    "soft reset": partial(LIF, v_reset=None),
    "reset below rest": partial(LIF, v_reset=-0.1),
    "decay 0.9": partial(LIF, decay=0.9),
    "PLIF": partial(PLIF, v_threshold=0.3),
    "Diet": partial(Diet, leak=0.8, threshold=0.7),
    "InfLoR": InfLoR,
    "RealSpike": RealSpike,
}
"""Settings of `LIF`, and neurons that are one."""
T = 3


def network(name: str, static: bool = True, **options: Any) -> tuple[SpikingNetwork, Tensor]:
    """A network in evaluation mode with running statistics of its own, and an input of two."""
    torch.manual_seed(0)
    sides = {"vggsnn": 48, "liafnet": 48, "sew-resnet18": 64}
    side = sides.get(name, 16 if name == "convnet" else 32)
    net = create(name, num_classes=10, T=T, **({"width": 0.125} | options))
    x = (
        normal(2, net.in_channels, side, side)
        if static
        else normal(T, 2, net.in_channels, side, side)
    )
    x = x.float()
    for module in net.modules():
        if hasattr(module, "running_mean"):
            nn.init.constant_(module.bias, 0.35)  # pyright: ignore[reportArgumentType]
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.3)
    with torch.no_grad():
        net.train()(x)  # running statistics
    return net.eval(), x


def rounding(graph: Graph) -> float:
    """By how much logits may differ whose layers have the same spikes: sums in another order.

    A sum of n products differs by at most n eps times the sum of their absolute values; spikes and
    their means are at most 1, and T steps are added.
    """
    layers: list[Any] = [node.does for node in graph.nodes if hasattr(node.does, "weight")]
    weight = layers[-1].weight.detach().flatten(1)
    terms, largest = weight.shape[1] * graph.T, float(weight.abs().sum(1).max()) * graph.T
    return 2 * terms * torch.finfo(torch.float32).eps * largest
