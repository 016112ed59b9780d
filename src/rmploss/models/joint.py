"""Joint A-SNN (Guo et al. 2023): an ANN and an SNN of one shape that share their factors U and V.

Shared: U and V of every kernel, the biases of the linear layers. Of each branch its own: the
singular values, norms, the weights of the linear layers; and ReLU or spiking neurons. Each has
three auxiliary heads behind its first three stages, in training only:

    conv 1x1 to 128,  conv k x k of stride k to 128 (k = 8, 4, 2),  conv 1x1 to 512,  pool, linear

In evaluation only the SNN runs, and `fold` leaves nothing else of the network.
"""

from collections.abc import Iterator
from typing import Any, Literal, Unpack

import torch
from torch import Tensor, nn

from rmploss.conv import SpikeConv2d
from rmploss.errors import UserError
from rmploss.models.factorized import FactorizedConv2d
from rmploss.models.flow import PassesSpikes, through
from rmploss.models.layers import (
    ConvNorm,
    MakeNeuron,
    MakeNorm,
    OverTime,
    conv1x1,
    initialize,
    scaled,
)
from rmploss.models.network import DataOptions, Readout, SpikingNetwork
from rmploss.models.resnet import CIFARResNet18, ResNet20
from rmploss.neurons import LIF, Accumulator
from rmploss.norm import TDBatchNorm2d
from rmploss.objectives.joint import Branch, Branches
from rmploss.ops import Spikes, dense_of

BACKBONES: dict[str, type[CIFARResNet18 | ResNet20]] = {
    "resnet18": CIFARResNet18,
    "resnet20": ResNet20,
}
SHRINK = (8, 4, 2)
"""Kernel and stride of the second convolution of the three auxiliary heads."""


class AuxiliaryHead(PassesSpikes):
    """Three convolutions, pooling, a linear layer: `[T, B, C, H, W]` to outputs and features."""

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        shrink: int,
        width: float,
        neuron: MakeNeuron,
        norm: MakeNorm,
    ) -> None:
        super().__init__()
        inner, outer = scaled(128, width), scaled(512, width)
        self.conv1, self.lif1 = conv1x1(in_channels, inner, norm), neuron(inner)
        conv = SpikeConv2d(inner, inner, shrink, stride=shrink, bias=False)
        self.conv2, self.lif2 = ConvNorm(conv, norm(inner)), neuron(inner)
        self.conv3, self.lif3 = conv1x1(inner, outer, norm), neuron(outer)
        self.pool = OverTime(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()))
        self.head = OverTime(nn.Linear(outer, num_classes))

    def forward_spikes(self, x: Tensor | Spikes) -> Any:
        """Outputs `[T, B, K]` and features `[T, B, C']`."""
        x = self.conv2.fire(self.conv1.fire(x, self.lif1), self.lif2)
        features = dense_of(through(self.pool, self.conv3.fire(x, self.lif3)))
        return self.head(features), features


class JointReadout(nn.Module):
    """The SNN's final logits `[B, K]`, of a record of both branches or of outputs over time."""

    def __init__(self, over_time: Accumulator) -> None:
        super().__init__()
        self.over_time = over_time

    def forward(self, outputs: Branches | Tensor) -> Tensor:
        """The logits; those of a record were read out over time before."""
        return outputs.snn.logits[-1] if isinstance(outputs, Branches) else self.over_time(outputs)


class JointNetwork(SpikingNetwork):
    """An SNN and its twin ANN, trained together; `loss = joint` belongs to it.

    backbone: of both: ResNet18 for 32x32 images (the paper's) or the family's ResNet20. The ANN
    sees a static image once, of a sequence the mean. width scales all channels; readout: of the
    SNN's outputs and features over time, "sum" as in the authors' code.
    """

    figure_layer = "snn.layer1.1.lif1"
    gives = "branches"

    def __init__(
        self,
        *,
        T: int = 4,
        width: float = 1.0,
        backbone: Literal["resnet18", "resnet20"] = "resnet18",
        readout: Readout = "sum",
        neuron: MakeNeuron = LIF,
        norm: MakeNorm = TDBatchNorm2d,
        **options: Unpack[DataOptions],
    ) -> None:
        super().__init__(T=T, readout=readout, **options)
        self.over_time = Accumulator(reduction=readout)
        self.readout = JointReadout(self.over_time)
        self.is_folded = False

        def twin(T: int, neuron: MakeNeuron, norm: MakeNorm) -> tuple[Any, nn.ModuleList]:
            body = BACKBONES[backbone](
                T=T, width=width, readout=readout, neuron=neuron, norm=norm, **options
            )
            stages = (scaled(c, width) for c in (64, 128, 256))
            heads = (
                AuxiliaryHead(c, self.num_classes, k, width, neuron, norm)
                for c, k in zip(stages, SHRINK, strict=True)
            )
            return body, nn.ModuleList(heads)

        self.snn, self.snn_heads = twin(T, neuron, norm)
        self.ann, self.ann_heads = twin(1, lambda _: nn.ReLU(), ann_norm)
        for heads in (self.snn_heads, self.ann_heads):
            initialize(heads)
        share(self.snn, self.ann)
        share(self.snn_heads, self.ann_heads)

    def outputs(self, x: Tensor) -> Any:
        """In evaluation the SNN's, `[T, B, num_classes]`; in training `Branches`."""
        if not self.training:
            return self.snn.outputs(x)
        if self.is_folded:
            raise UserError("a folded joint network has no ANN to train with: fold a copy of it")
        still = x if x.ndim == 4 else x.mean(0)
        return Branches(
            self._branch(self.ann, self.ann_heads, still),
            self._branch(self.snn, self.snn_heads, x),
        )

    def _branch(self, body: Any, heads: nn.ModuleList, x: Tensor) -> Branch:
        found: list[tuple[Tensor, Tensor]] = []
        x = body.stem(x)
        for index, layer in enumerate(body.layers()):
            x = through(layer, x)
            if index < len(heads):
                found.append(through(heads[index], x))
        features = dense_of(through(body.pool, x))
        found.append((body.head(features), features))
        read = self.over_time
        logits, features = zip(*((read(o), read(f)) for o, f in found), strict=True)
        return Branch(tuple(logits), tuple(features))

    def fold(self) -> None:
        """Leave the SNN alone, with ordinary kernels U diag(sigma) V (exact)."""
        if self.is_folded:
            return
        self.is_folded = True
        for module in self.snn.modules():
            if isinstance(module, ConvNorm) and isinstance(module.conv, FactorizedConv2d):
                module.add_module("conv", module.conv.multiplied_out())
        del self.ann, self.ann_heads, self.snn_heads


def ann_norm(channels: int) -> TDBatchNorm2d:
    """The batch normalization of an ANN: without the factor alpha V_th."""
    return TDBatchNorm2d(channels, factor="none")


def share(snn: nn.Module, ann: nn.Module) -> None:
    """Tie the kernels and biases of two networks of one shape; what stays apart starts equal."""
    for ours, theirs in _pairs(snn, ann, ConvNorm):
        spiking = FactorizedConv2d(ours.conv)
        ours.add_module("conv", spiking)
        theirs.add_module("conv", FactorizedConv2d(theirs.conv, spiking.factors))
    for ours, theirs in _pairs(snn, ann, nn.Linear):
        with torch.no_grad():
            theirs.weight.copy_(ours.weight)
        theirs.bias = ours.bias


def _pairs(one: nn.Module, other: nn.Module, kind: Any) -> Iterator[tuple[Any, Any]]:
    ours, theirs = ([m for m in net.modules() if isinstance(m, kind)] for net in (one, other))
    return zip(ours, theirs, strict=True)
