"""Stand-ins for other libraries: plain PyTorch around our reference neuron, right and wrong."""

from typing import Any

import torch
from torch import Tensor, nn

from rmploss import LIF
from rmploss.ops import use_backend
from rmploss_bench.conditions import Conditions, make_conditions
from rmploss_bench.peers import Kit
from rmploss_bench.peers._network import Flat
from rmploss_bench.workload import Workload, make_workload


def tiny(network: str = "resnet20", **fields: object) -> Conditions:
    """Conditions under which a step takes milliseconds."""
    return make_conditions(network, **{"T": 2, "batch": 2, "width": 0.0625, **fields})  # pyright: ignore[reportArgumentType]


def tiny_workload(network: str = "resnet20") -> Workload:
    """The workload of `tiny`."""
    return make_workload(tiny(network))


class Reference(LIF):
    """`LIF` on the reference backend."""

    def forward(self, x: Tensor, **options: Any) -> Tensor:
        with use_backend("reference"):
            return super().forward(x, **options)


class Plain(Kit):
    """A library that has the paper's neuron."""

    package = "plain"
    decay = 0.25

    def over_time(self, *layers: nn.Module) -> nn.Module:
        return Flat(*layers)

    def neurons(self) -> nn.Module:
        return Reference(decay=self.decay)


class Leakier(Plain):
    """A library with another leak."""

    decay = 0.2


class Forgetful(Plain):
    """A library whose norm does not see all time steps together."""

    def over_time(self, *layers: nn.Module) -> nn.Module:
        return _StepByStep(*layers)


class _StepByStep(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return torch.stack([super(_StepByStep, self).forward(step) for step in input])
