"""SEW ResNet and the Spiking ResNet it is compared with (Fang et al., NeurIPS 2021), for ImageNet.

    stem     conv 7x7 and norm, once for the image, neurons, the maximum over 3x3 of their spikes
    SEW      blocks that join spikes after their neurons (models/sew.py)
    Spiking  blocks that add currents before their neurons, as in models/resnet.py

Integrate-and-fire neurons with threshold 1, hard reset without gradient, arctan; batch norm over
time; the linear layer reads the mean rate. 11,689,512 and 21,797,672 parameters, 1000 classes.
"""

from functools import partial
from typing import Unpack

from torch import nn

from rmploss.models.layers import MakeNeuron, MakeNorm, initialize
from rmploss.models.network import DataOptions, Readout
from rmploss.models.resnet import BasicBlock, Connect, ImageNetResNet
from rmploss.models.sew import Connect as Function
from rmploss.models.sew import SEWBlock, silence
from rmploss.neurons import IF
from rmploss.norm import TDBatchNorm2d

NEURON = partial(IF, v_threshold=1.0, detach_reset=True, surrogate="arctan")
NORM = partial(TDBatchNorm2d, factor="none")


class SizeOptions(DataOptions, total=False):
    """Options of `_FangResNet` that `ImageNetResNet` takes as they are."""

    T: int
    width: float


class FangOptions(SizeOptions, total=False):
    """Options that all four networks share."""

    readout: Readout
    neuron: MakeNeuron
    norm: MakeNorm


class _FangResNet(ImageNetResNet):
    """What the four networks share: the pooling, and the start of the weights.

    zero_init_residual: every block starts as the identity of its shortcut.
    """

    stem_pooling = nn.MaxPool2d

    def __init__(
        self,
        *,
        connect: Connect,
        zero_init_residual: bool,
        readout: Readout = "mean",
        neuron: MakeNeuron = NEURON,
        norm: MakeNorm = NORM,
        **options: Unpack[SizeOptions],
    ) -> None:
        super().__init__(connect=connect, readout=readout, neuron=neuron, norm=norm, **options)
        for module in self.modules() if zero_init_residual else ():
            if isinstance(module, SEWBlock):
                module.start_as_identity()
            elif isinstance(module, BasicBlock):
                silence(module.conv2)

    def finish(self) -> None:
        """Convolutions kaiming-normal by fan-out, as the family's are; PyTorch's linear layer."""
        initialize(self)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                module.reset_parameters()

    def heights_fold_into(self) -> dict[str, tuple[str, ...]]:
        """As in every ResNet, but for the stem: a height below 0 would turn the maximum around."""
        found = super().heights_fold_into()
        found.pop("lif1", None)
        return found


class _SEWResNet(_FangResNet):
    """Blocks that join spikes."""

    def __init__(
        self,
        *,
        connect: Function = "add",
        zero_init_residual: bool = False,
        **options: Unpack[FangOptions],
    ) -> None:
        super().__init__(connect=connect, zero_init_residual=zero_init_residual, **options)


class SEWResNet18(_SEWResNet):
    """SEW ResNet18; connect: the function that joins the branches."""


class SEWResNet34(_SEWResNet):
    """SEW ResNet34; connect: the function that joins the branches."""

    blocks = (3, 4, 6, 3)


class _SpikingResNet(_FangResNet):
    """Blocks that add currents."""

    def __init__(self, *, zero_init_residual: bool = True, **options: Unpack[FangOptions]) -> None:
        super().__init__(connect="current", zero_init_residual=zero_init_residual, **options)


class SpikingResNet18(_SpikingResNet):
    """Spiking ResNet18; its blocks start as the identity, as in the authors' runs."""


class SpikingResNet34(_SpikingResNet):
    """Spiking ResNet34; its blocks start as the identity, as in the authors' runs."""

    blocks = (3, 4, 6, 3)
