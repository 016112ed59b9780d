"""Spiking networks: one file per architecture, one line each in `MODELS`."""

from typing import Any

from rmploss.errors import Problem, UserError
from rmploss.models.network import SpikingNetwork
from rmploss.registry import Registry
from rmploss.stats import name_layers

__all__ = ["MODELS", "SpikingNetwork", "create"]

MODELS: Registry[type[SpikingNetwork]] = Registry(
    "network",
    {
        "resnet20": "rmploss.models.resnet:ResNet20",
        "resnet19": "rmploss.models.resnet:ResNet19",
        "resnet18-cifar": "rmploss.models.resnet:CIFARResNet18",
        "resnet18": "rmploss.models.resnet:ResNet18",
        "resnet34": "rmploss.models.resnet:ResNet34",
        "vgg16": "rmploss.models.vgg:VGG16",
        "cifarnet": "rmploss.models.cifarnet:CIFARNet",
        "plifnet": "rmploss.models.plifnet:PLIFNet",
        "plifnet-dvs": "rmploss.models.plifnet:PLIFNetDVS",
        "vggsnn": "rmploss.models.vggsnn:VGGSNN",
        "tssl-cifarnet": "rmploss.models.tssl_cifarnet:TSSLCifarNet",
        "sew-resnet18": "rmploss.models.sew_resnet:SEWResNet18",
        "sew-resnet34": "rmploss.models.sew_resnet:SEWResNet34",
        "spiking-resnet18": "rmploss.models.sew_resnet:SpikingResNet18",
        "spiking-resnet34": "rmploss.models.sew_resnet:SpikingResNet34",
        "diet-vgg16": "rmploss.models.diet_nets:DietVGG16",
        "diet-resnet20": "rmploss.models.diet_nets:DietResNet20",
        "joint": "rmploss.models.joint:JointNetwork",
        "preact-resnet18": "rmploss.models.preact_resnet18:PreActResNet18",
        "liafnet": "rmploss.models.liafnet:LIAFNet",
        "liafnet-conv3d": "rmploss.models.liafnet_conv3d:LIAFNetConv3D",
        "convnet": "rmploss.models.convnet:ConvNet",
    },
    family="network",
)


def create(name: str, **options: Any) -> SpikingNetwork:
    """A network by name: `create("resnet20", num_classes=10, T=4)`.

    options: those of the network (in_channels, num_classes, T, width, readout, neuron, norm and
    its own); an unknown one raises `UserError` with the nearest that exists.
    """
    problems = [
        Problem(f"{part} = {options[part]!r}", "must be a function of the channels", fix)
        for part, fix in (("neuron", "neuron=LIF"), ("norm", "norm=TDBatchNorm2d"))
        if part in options and not callable(options[part])
    ]
    if problems:
        raise UserError(f"cannot make network {name!r}", problems)
    net: SpikingNetwork = MODELS.make(name, **options)
    name_layers(net)
    return net
