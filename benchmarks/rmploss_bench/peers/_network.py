"""The frame of a peer's network: the parts of a plan, made by the peer's kit, with our weights."""

import importlib
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from rmploss.errors import UserError
from rmploss_bench.plan import Conv, Neurons, Part, Plan, Pool, Residual, State

ALPHA_V_TH = 0.5
"""The factor of tdBN (Eq. 6), which a peer has as the initial gain of its batch normalization."""


class MissingPeerError(UserError):
    """A peer that is not installed, or cannot be imported."""


def peer_module(name: str) -> Any:
    """A module of a peer, imported by name so that nobody needs it; raises `MissingPeerError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what a peer says of its own imports
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        top = name.partition(".")[0]
        if error.name and error.name.partition(".")[0] != top:
            raise MissingPeerError(f"{top} needs {error.name}: pip install {error.name}") from error
        raise MissingPeerError("not installed: pip install './benchmarks[peers]'") from error


class Kit(ABC):
    """How one library builds the parts of a network over sequences `[T, B, C, H, W]`.

    memory_format: of the convolutions: the one that the library's training step was faster with on
    a CPU (ResNet20 and VGG16 of half width; 0 to 17 %).
    """

    package: ClassVar[str]
    memory_format: ClassVar[torch.memory_format] = torch.channels_last

    @abstractmethod
    def over_time(self, *layers: nn.Module) -> nn.Module:
        """Layers without memory on `[T, B, ...]`, statistics joint over T and B."""

    @abstractmethod
    def neurons(self) -> nn.Module:
        """A layer of the paper's LIF neurons: current `[T, B, ...]` to spikes."""

    def reset(self, net: nn.Module) -> None:  # noqa: B027  most have nothing to forget
        """Forget the membranes of the last batch."""


class PeerNetwork(nn.Module):
    """Images `[B, 3, H, W]`, shown for T steps, to logits `[B, K]` (sum over time, Eq. 4).

    spiking: the layers of neurons by the names that they have in our network.
    """

    def __init__(self, kit: Kit, plan: Plan, state: State, T: int) -> None:
        super().__init__()
        self.T = T
        self.spiking: dict[str, nn.Module] = {}
        self.body = nn.Sequential(*self._made(kit, plan, state))
        classes, features = state["head.layer.weight"].shape
        self.pool = kit.over_time(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        linear = nn.Linear(features, classes)
        _take(linear, state, "head.layer")
        self.head = kit.over_time(linear)

    def forward(self, x: Tensor) -> Tensor:
        """Logits `[B, K]`."""
        sequence = x.unsqueeze(0).repeat(self.T, 1, 1, 1, 1)
        return self.head(self.pool(self.body(sequence))).sum(0)

    def _made(self, kit: Kit, plan: Plan, state: State) -> Iterator[nn.Module]:
        for part in plan:
            yield self._part(kit, part, state)

    def _part(self, kit: Kit, part: Part, state: State) -> nn.Module:
        if isinstance(part, Neurons):
            self.spiking[part.name] = made = kit.neurons()
            return made
        if isinstance(part, Conv):
            return kit.over_time(*_conv_norm(part, state))
        if isinstance(part, Pool):
            pool = nn.AvgPool2d(part.kernel, ceil_mode=True, count_include_pad=False)
            return kit.over_time(pool)
        assert isinstance(part, Residual)
        paths = [
            nn.Sequential(*self._made(kit, path, state)) for path in (part.body, part.shortcut)
        ]
        return Sum(*paths)


class Sum(nn.Module):
    """The sum of a path and its shortcut."""

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
    """Give a layer our weights of that name."""
    own = {key: state[f"{name}.{key}"] for key in layer.state_dict() if f"{name}.{key}" in state}
    layer.load_state_dict(own, strict=False)
    lost = {key for key, _ in layer.named_parameters()} - set(own)
    if lost:
        raise AssertionError(f"{name}: no weights for {sorted(lost)}")


class Flat(nn.Sequential):
    """Layers on `[T, B, ...]` as one batch of T*B: what a user of plain PyTorch writes."""

    def forward(self, input: Tensor) -> Tensor:
        """The layers' output `[T, B, ...]`."""
        return super().forward(input.flatten(0, 1)).unflatten(0, input.shape[:2])
