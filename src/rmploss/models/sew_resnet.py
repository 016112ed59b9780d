"""SEW ResNet and the Spiking ResNet it is compared with (Fang et al., NeurIPS 2021), for ImageNet.

    stem     conv 7x7 and norm, once for the image, neurons, the maximum over 3x3 of their spikes
    SEW      blocks that join spikes after their neurons (models/sew.py)
    Spiking  blocks that add currents before their neurons, as in models/resnet.py

Integrate-and-fire neurons with threshold 1, hard reset without gradient, arctan; batch norm over
time; the linear layer reads the mean rate. 11,689,512 and 21,797,672 parameters, 1000 classes.
"""

from functools import partial
from typing import Literal

from torch import nn

from rmploss.models.layers import MakeNeuron, MakeNorm, initialize
from rmploss.models.resnet import BasicBlock, Connect, ImageNetResNet
from rmploss.models.sew import Connect as Function
from rmploss.models.sew import SEWBlock, silence
from rmploss.neurons import IF
from rmploss.norm import TDBatchNorm2d

NEURON = partial(IF, v_threshold=1.0, detach_reset=True, surrogate="arctan")
NORM = partial(TDBatchNorm2d, factor="none")
BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}


class _FangResNet(ImageNetResNet):
    """What the four networks share: the pooling, and the start of the weights.

    zero_init_residual: every block starts as the identity of its shortcut.
    """

    def __init__(
        self,
        depth: int,
        connect: Connect,
        *,
        in_channels: int,
        num_classes: int,
        T: int,
        width: float,
        readout: Literal["sum", "mean"],
        zero_init_residual: bool,
        neuron: MakeNeuron,
        norm: MakeNorm,
    ) -> None:
        super().__init__(
            BLOCKS[depth],
            connect=connect,
            pool="max",
            in_channels=in_channels,
            num_classes=num_classes,
            T=T,
            width=width,
            readout=readout,
            neuron=neuron,
            norm=norm,
        )
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

    def readers(self) -> dict[str, tuple[str, ...]]:
        """As in every ResNet, but for the stem: a height below 0 would turn the maximum around."""
        found = super().readers()
        found.pop("lif1", None)
        return found


class SEWResNet18(_FangResNet):
    """SEW ResNet18; connect: the function that joins the branches."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        T: int = 4,
        width: float = 1.0,
        readout: Literal["sum", "mean"] = "mean",
        connect: Function = "add",
        zero_init_residual: bool = False,
        neuron: MakeNeuron = NEURON,
        norm: MakeNorm = NORM,
    ) -> None:
        super().__init__(
            18,
            connect,
            in_channels=in_channels,
            num_classes=num_classes,
            T=T,
            width=width,
            readout=readout,
            zero_init_residual=zero_init_residual,
            neuron=neuron,
            norm=norm,
        )


class SEWResNet34(_FangResNet):
    """SEW ResNet34; connect: the function that joins the branches."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        T: int = 4,
        width: float = 1.0,
        readout: Literal["sum", "mean"] = "mean",
        connect: Function = "add",
        zero_init_residual: bool = False,
        neuron: MakeNeuron = NEURON,
        norm: MakeNorm = NORM,
    ) -> None:
        super().__init__(
            34,
            connect,
            in_channels=in_channels,
            num_classes=num_classes,
            T=T,
            width=width,
            readout=readout,
            zero_init_residual=zero_init_residual,
            neuron=neuron,
            norm=norm,
        )


class SpikingResNet18(_FangResNet):
    """Spiking ResNet18; its blocks start as the identity, as in the authors' runs."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        T: int = 4,
        width: float = 1.0,
        readout: Literal["sum", "mean"] = "mean",
        zero_init_residual: bool = True,
        neuron: MakeNeuron = NEURON,
        norm: MakeNorm = NORM,
    ) -> None:
        super().__init__(
            18,
            "current",
            in_channels=in_channels,
            num_classes=num_classes,
            T=T,
            width=width,
            readout=readout,
            zero_init_residual=zero_init_residual,
            neuron=neuron,
            norm=norm,
        )


class SpikingResNet34(_FangResNet):
    """Spiking ResNet34; its blocks start as the identity, as in the authors' runs."""

    def __init__(
        self,
        *,
        in_channels: int = 3,
        num_classes: int = 1000,
        T: int = 4,
        width: float = 1.0,
        readout: Literal["sum", "mean"] = "mean",
        zero_init_residual: bool = True,
        neuron: MakeNeuron = NEURON,
        norm: MakeNorm = NORM,
    ) -> None:
        super().__init__(
            34,
            "current",
            in_channels=in_channels,
            num_classes=num_classes,
            T=T,
            width=width,
            readout=readout,
            zero_init_residual=zero_init_residual,
            neuron=neuron,
            norm=norm,
        )
