"""Spiking networks: one file per architecture, one line each in `MODELS`."""

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import nn

from rmploss.arguments import checked, shown
from rmploss.errors import MemoryLimitError, Problem, UserError
from rmploss.models.network import SpikingNetwork
from rmploss.registry import Registry
from rmploss.sizes import USUAL_WIDTH, is_meta, memory, too_large
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


@checked(name='create("resnet20")', **{"": 'create("resnet20", num_classes=10, T=4)'})
def create(name: str, **options: Any) -> SpikingNetwork:
    """A network by name: `create("resnet20", num_classes=10, T=4)`.

    options: those of the network (in_channels, num_classes, T, width, readout, neuron, norm and
    its own); an unknown one raises `UserError` with the nearest that exists, parameters that no
    memory here holds `MemoryLimitError`.
    """
    problems = [problem for part, fix in PARTS.items() for problem in _no_part(part, fix, options)]
    if problems:
        raise UserError(f"cannot make network {name!r}", problems)
    makers = {part: _making(part, options[part]) for part in PARTS if part in options}
    options |= makers
    _require_room(name, options)
    net: SpikingNetwork = MODELS.make(name, **options)
    name_layers(net)
    return net


PARTS = {"neuron": "neuron=LIF", "norm": "norm=TDBatchNorm2d"}
"""Options that make layers of a number of channels, and what to type."""
USUAL = {"width": USUAL_WIDTH, "num_classes": 2**14, "in_channels": 2**10}
"""Up to these sizes a network is made without an estimate of its parameters."""


def _no_part(part: str, fix: str, options: Mapping[str, Any]) -> list[Problem]:
    """The problem of an option that should make layers and cannot; empty if it may."""
    if part not in options:
        return []
    make, where = options[part], f"{part} = {shown(options[part])}"
    if isinstance(make, nn.Module):
        return [Problem(where, "is one layer, where each needs a new one", fix)]
    if not callable(make):
        return [Problem(where, "must be a function of the channels", fix)]
    with suppress(ValueError):  # of a callable without a signature
        try:
            inspect.signature(make).bind(1)
        except TypeError as error:
            return [Problem(where, f"must be a function of the channels: {error}", fix)]
    return []


def _making(part: str, make: Callable[[int], Any]) -> Callable[[int], nn.Module]:
    """`make`, of which anything but a module is refused."""

    def made(channels: int) -> nn.Module:
        layer = make(channels)
        if not isinstance(layer, nn.Module):
            what = f"makes a {type(layer).__name__} and no torch.nn.Module"
            problem = Problem(f"{part}({channels})", what, PARTS[part])
            raise UserError("cannot make network", [problem])
        return layer

    return made


def _require_room(name: str, options: Mapping[str, Any]) -> None:
    """Raise `MemoryLimitError` for a network whose parameters no memory here holds."""
    sizes = {k: v for k, v in options.items() if k in USUAL and isinstance(v, int | float)}
    large = {k: v for k, v in sizes.items() if USUAL[k] < v < math.inf}
    if not large or is_meta() or MODELS.problems(name, options):
        return
    where = ", ".join(f"{k} = {v}" for k, v in large.items())
    fix = "width=1" if "width" in large else ""
    room = memory()
    try:
        with torch.device("meta"):
            net: SpikingNetwork = MODELS.make(name, **options)
    except (RuntimeError, OverflowError):
        problem = Problem(where, "makes more parameters than can be counted", fix)
    else:
        need = sum(p.numel() * p.element_size() for p in net.parameters())
        if need <= room:
            return
        problem = Problem(where, too_large("the parameters", need, room), fix)
    raise MemoryLimitError(f"no room for network {name!r}", [problem])
