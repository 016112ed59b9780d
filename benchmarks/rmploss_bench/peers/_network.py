"""A peer's network: the parts of a blueprint, built with the peer's kit, with our weights."""

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rmploss.errors import UserError
from rmploss_bench.blueprint import Blueprint, Conv, Neurons, Part, Pool, Residual, State

ALPHA_V_TH = 0.5
"""The factor of tdBN (Eq. 6), dimensionless: a peer's batch normalization has it in its gain."""


class MissingPeerError(UserError):
    """A peer that is not installed, or cannot be imported."""


def peer_module(name: str) -> Any:
    """Import a module of a peer by name, since peers are optional.

    Raises `MissingPeerError` if the peer, or a package that it needs, is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a peer's warnings about its own imports
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name and error.name.partition(".")[0] != top:
            raise MissingPeerError(f"{top} needs {error.name}: pip install {error.name}") from error
        raise MissingPeerError("not installed: pip install './benchmarks[peers]'") from error


class Kit(ABC):
    """How one library builds the parts of a network over sequences `[T, B, C, H, W]`.

    package: the name of the library's package.
    memory_format: of the convolutions. The faster one for the library's training step on a CPU was
        chosen (ResNet20 and VGG16 of half width; by 0 to 17 %).
    """

    package: ClassVar[str]
    memory_format: ClassVar[torch.memory_format] = torch.channels_last

    @abstractmethod
    def over_time(self, *layers: nn.Module) -> nn.Module:
        """Stateless layers applied to `[T, B, ...]`; statistics are taken over T and B together."""

    @abstractmethod
    def neurons(self) -> nn.Module:
        """A layer of the paper's LIF neurons: current `[T, B, ...]` to spikes `[T, B, ...]`."""

    def reset(self, net: nn.Module) -> None:  # noqa: B027  most peers keep no membranes
        """Set all membranes back to rest."""


class PeerNetwork(nn.Module):
    """Images `[B, 3, H, W]`, repeated for T steps, to logits `[B, K]` (sum over time, Eq. 4).

    kit: builds the layers.
    blueprint: the parts of the network.
    state: the weights of our network.
    T: number of time steps.

    The attribute `spiking` holds the layers of neurons by their names in our network.
    """

    def __init__(self, kit: Kit, blueprint: Blueprint, state: State, T: int) -> None:
        super().__init__()
        self.T = T
        self.spiking: dict[str, nn.Module] = {}
        self.body = nn.Sequential(*self._layers(kit, blueprint, state))
        classes, features = state["head.layer.weight"].shape
        self.pool = kit.over_time(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        linear = nn.Linear(features, classes)
        _take(linear, state, "head.layer")
        self.head = kit.over_time(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]`."""
        sequence = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        return self.head(self.pool(self.body(sequence))).sum(0)

    def _layers(self, kit: Kit, blueprint: Blueprint, state: State) -> Iterator[nn.Module]:
        for part in blueprint:
            yield self._part(kit, part, state)

    def _part(self, kit: Kit, part: Part, state: State) -> nn.Module:
        if isinstance(part, Neurons):
            self.spiking[part.name] = neurons = kit.neurons()
            return neurons
        if isinstance(part, Conv):
            return kit.over_time(*_conv_norm(part, state))
        if isinstance(part, Pool):
            return kit.over_time(nn.AvgPool2d(**part.options()))  # pyright: ignore[reportArgumentType]
        assert isinstance(part, Residual)
        paths = [
            nn.Sequential(*self._layers(kit, path, state)) for path in (part.body, part.shortcut)
        ]
        return Sum(*paths)


class Sum(nn.Module):
    """The sum of a residual block's two paths."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        """The sum of the two currents."""
        return self.body(x) + self.shortcut(x)


def _conv_norm(part: Conv, state: State) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    weight = state[f"{part.name}.conv.weight"]
    target, source, kernel, _ = weight.shape
    bias = f"{part.name}.conv.bias" in state
    conv = nn.Conv2d(source, target, kernel, part.stride, kernel // 2, bias=bias)
    _take(conv, state, f"{part.name}.conv")
    norm = nn.BatchNorm2d(target)
    _take(norm, state, f"{part.name}.norm")
    with torch.no_grad():
        norm.weight.mul_(ALPHA_V_TH)
    return conv, norm


def _take(layer: nn.Module, state: State, name: str) -> None:
    """Load our weights of that name into a layer."""
    own = {key: state[f"{name}.{key}"] for key in layer.state_dict() if f"{name}.{key}" in state}
    layer.load_state_dict(own, strict=False)
    lost = {key for key, _ in layer.named_parameters()} - set(own)
    if lost:
        raise AssertionError(f"{name}: no weights for {sorted(lost)}")


class Flat(nn.Sequential):
    """Apply layers to `[T, B, ...]` as one batch of T*B, as a user of plain PyTorch would."""

    def forward(self, input: Tensor) -> Tensor:
        """The layers' output `[T, B, ...]`."""
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])
