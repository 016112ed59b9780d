"""The dense bound: the network's convolutions alone, dense and channels_last, with random maps.

This is the time of a training step in which neurons, norms, losses and optimizer cost nothing. In
bf16 maps, weights and gradients are bfloat16. The
first convolution gets the B images once (a static image is the same at every time step) and has no
input gradient; every other one gets T*B maps. No step that computes its convolutions densely can be
faster; one with event-driven convolutions can.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.randomness import generator
from rmploss_bench.blueprint import Conv, Layer, layers
from rmploss_bench.runners import Runner
from rmploss_bench.workload import Workload


class Dense(Runner):
    """Every convolution of the network on a random input of its own."""

    def __init__(self, workload: Workload) -> None:
        shapes = layers(workload.blueprint, workload.state, workload.image)
        found = [layer for layer in shapes if isinstance(layer.part, Conv)]
        self.parts = [
            _Convolution(workload, layer, index == 0) for index, layer in enumerate(found)
        ]

    def step(self) -> None:
        """Forward and backward of every convolution."""
        for part in self.parts:
            part.forward().backward(part.gradient)
            part.forget()

    def infer(self) -> None:
        """Forward of every convolution, without gradients."""
        with torch.no_grad():
            for part in self.parts:
                part.forward()


class _Convolution:
    def __init__(self, workload: Workload, layer: Layer, first: bool) -> None:
        conditions = workload.conditions
        assert isinstance(layer.part, Conv)
        maps = conditions.batch if first else conditions.batch * conditions.T
        random = generator(conditions.seed, "dense bound", layer.part.name)
        weight = workload.state[f"{layer.part.name}.conv.weight"].detach()
        half = conditions.precision == "bf16"
        dtype = torch.bfloat16 if half else workload.images.dtype

        def drawn(*shape: int) -> Tensor:
            values = torch.randn(shape, generator=random).to(conditions.device, dtype)
            return values.contiguous(memory_format=torch.channels_last)

        self.stride, self.padding = layer.part.stride, weight.shape[-1] // 2
        self.x = drawn(maps, *layer.source).requires_grad_(not first)
        last = torch.channels_last
        self.weight = weight.to(dtype, copy=True).contiguous(memory_format=last).requires_grad_()
        self.gradient = drawn(maps, *layer.target)

    def forward(self) -> Tensor:
        return F.conv2d(self.x, self.weight, stride=self.stride, padding=self.padding)

    def forget(self) -> None:
        self.x.grad = self.weight.grad = None


def make_dense_bound(workload: Workload, train: bool) -> Runner:
    """The dense bound of a workload; `train` makes no difference."""
    return Dense(workload)
