"""The dense bound: the network's convolutions alone, dense and channels_last, with random maps.

What is left of a training step when neurons, norms, losses and optimizer cost nothing. The first
convolution sees the B images once (a static image is the same at every time step) and has no input
gradient; all others see T*B maps. It is a bound for whoever computes convolutions densely: an
event-driven one may go below it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.randomness import generator
from rmploss_bench.case import IMAGE, Case
from rmploss_bench.contestants import Runner
from rmploss_bench.plan import Conv, Layer, layers


class Dense(Runner):
    """Every convolution on an input of its own, forward and backward."""

    def __init__(self, case: Case) -> None:
        shapes = layers(case.parts, case.state, IMAGE)
        found = [layer for layer in shapes if isinstance(layer.part, Conv)]
        self.parts = [_Convolution(case, layer, index == 0) for index, layer in enumerate(found)]

    def step(self) -> None:
        """Forward and backward of all."""
        for part in self.parts:
            part.forward().backward(part.gradient)
            part.forget()

    def infer(self) -> None:
        """Forward of all."""
        with torch.no_grad():
            for part in self.parts:
                part.forward()


class _Convolution:
    def __init__(self, case: Case, layer: Layer, first: bool) -> None:
        made = case.setting
        assert isinstance(layer.part, Conv)
        maps = made.batch if first else made.batch * made.T
        random = generator(made.seed, "dense bound", layer.part.name)
        weight = case.state[f"{layer.part.name}.conv.weight"].detach()

        def drawn(*shape: int) -> Tensor:
            values = torch.randn(shape, generator=random).to(made.device)
            return values.contiguous(memory_format=torch.channels_last)

        self.stride, self.padding = layer.part.stride, weight.shape[-1] // 2
        self.x = drawn(maps, *layer.source).requires_grad_(not first)
        last = torch.channels_last
        self.weight = weight.clone().contiguous(memory_format=last).requires_grad_()
        self.gradient = drawn(maps, *layer.target)

    def forward(self) -> Tensor:
        return F.conv2d(self.x, self.weight, stride=self.stride, padding=self.padding)

    def forget(self) -> None:
        self.x.grad = self.weight.grad = None


def bound(case: Case, train: bool) -> Runner:
    """The dense bound of a case, the same object for training and evaluation."""
    return Dense(case)
