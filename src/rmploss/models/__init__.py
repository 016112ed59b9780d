"""Spiking networks: one file per architecture, one line each in `MODELS`."""

from typing import Any

from rmploss.models.network import SpikingNetwork
from rmploss.stats import name_layers
from rmploss.tables import Table

__all__ = ["MODELS", "SpikingNetwork", "create"]

MODELS: Table[type[SpikingNetwork]] = Table(
    "network",
    {
        "resnet20": "rmploss.models.resnet:ResNet20",
        "resnet19": "rmploss.models.resnet:ResNet19",
        "resnet18": "rmploss.models.resnet:ResNet18",
        "resnet34": "rmploss.models.resnet:ResNet34",
        "vgg16": "rmploss.models.vgg:VGG16",
        "convnet": "rmploss.models.convnet:ConvNet",
    },
)


def create(name: str, **options: Any) -> SpikingNetwork:
    """A network by name: `create("resnet20", num_classes=10, T=4)`.

    options: those of the network (in_channels, num_classes, T, width, readout, neuron, norm and
    its own); an unknown one raises `UserError` with the nearest that exists.
    """
    net: SpikingNetwork = MODELS.make(name, **options)
    name_layers(net)
    return net
