"""What the spiking networks are made of: convolution + norm over time, pooling over time, init."""

import math
from collections.abc import Callable
from typing import Any, Literal

from torch import Tensor, nn

from rmploss.conv import ReadsSpikes, SpikeConv2d
from rmploss.errors import Problem, UserError
from rmploss.models.dropout import Dropout
from rmploss.neurons import LIF
from rmploss.norm import NoNorm, TDBatchNorm2d, fold
from rmploss.ops.pooling import avg_pool2d

MakeNeuron = Callable[[int], nn.Module]
"""Makes the neurons of that many channels."""
MakeNorm = Callable[[int], nn.Module]
"""Makes the normalization of that many channels."""


def placed(neuron: nn.Module, place: Literal["inner", "sum"]) -> nn.Module:
    """Neurons that know their place in a residual block: see `SpikingLayer.place`."""
    setattr(neuron, "place", place)  # noqa: B010  a module's own types are tensors
    return neuron


class OverTime(nn.Module):
    """A layer without memory applied to every time step: `[T, B, ...]` as one batch of T*B."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The layer's output `[T, B, ...]`."""
        return self.layer(x.flatten(0, 1)).unflatten(0, x.shape[:2])


class Shortcut(nn.Identity, ReadsSpikes):
    """The shortcut of a block as it is."""


class AvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` that keeps nothing for backward where the squares tile the map."""

    def forward(self, input: Tensor) -> Tensor:
        """The means `[N, C, H', W']`."""
        k = self.kernel_size
        plain = self.padding == 0 and self.divisor_override is None and input.ndim == 4
        if not isinstance(k, int) or self.stride != k or not plain:
            return super().forward(input)
        if input.shape[-2] % k or input.shape[-1] % k:
            return super().forward(input)
        return avg_pool2d(input, k)


class ConvNorm(nn.Module):
    """Convolution and norm, `[T, B, C, H, W]` to `[T, B, C', H', W']`; foldable for inference."""

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module | None = None if isinstance(norm, NoNorm) else norm

    def forward(self, x: Tensor, repeats: int = 1) -> Tensor:
        """The input current of the next neurons; repeats: x stands for that many equal steps."""
        y = self._convolve(x)
        return y if self.norm is None else self.norm(y, repeats)

    def fire(
        self,
        x: Tensor,
        neuron: nn.Module,
        *,
        residual: Tensor | None = None,
        binary_residual: bool | None = None,
        repeats: int = 1,
    ) -> Tensor:
        """The spikes of `neuron` on norm(conv(x)) + residual, `[T, B, C', H', W']`.

        repeats: x `[1, B, C, H, W]` stands for that many equal steps; convolution and norm run
        once, and the result, running statistics included, is that of running them as often.
        binary_residual: whether the residual is all 0 and 1, if that is known.
        """
        shortcut: Any = {"residual": residual, "binary_residual": binary_residual}
        return fire(self._convolve(x), self.norm, neuron, **shortcut, repeats=repeats)

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv(x.flatten(0, 1)).unflatten(0, x.shape[:2])

    def fold(self) -> None:
        """Make the norm part of the convolution, for evaluation (exact)."""
        if isinstance(self.norm, TDBatchNorm2d):
            self.conv = fold(self.conv, self.norm)
            self.norm = None


def fire(
    y: Tensor,
    norm: nn.Module | None,
    neuron: nn.Module,
    *,
    residual: Tensor | None = None,
    binary_residual: bool | None = None,
    repeats: int = 1,
) -> Tensor:
    """The spikes `[T, B, C, H, W]` of `neuron` on norm(y) + residual, in one operation if it can.

    repeats: y `[1, B, C, H, W]` stands for that many equal steps; binary_residual: whether the
    residual is all 0 and 1, if that is known.
    """
    options = {"residual": residual, "binary_residual": binary_residual, "repeats": repeats}
    plain = _is_plain(neuron, LIF)
    if plain and (norm is None or _is_plain(norm, TDBatchNorm2d)):
        return neuron(y, norm=norm, **options)
    current = y if norm is None else norm(y, repeats)
    if plain:
        return neuron(current, **options)
    if repeats > 1:
        current = current.expand(repeats, *current.shape[1:])
    return neuron(current if residual is None else current + residual)


def is_binary(shortcut: nn.Module) -> bool | None:
    """Whether what a shortcut adds is all 0 and 1: not behind a projection; None: nobody knows."""
    if isinstance(shortcut, Shortcut):
        return shortcut.known
    last = shortcut[-1] if isinstance(shortcut, nn.Sequential) else shortcut
    return False if isinstance(last, ConvNorm) else None


def _is_plain(module: nn.Module, kind: type[nn.Module]) -> bool:
    """Whether a module is what its class says: nobody changed its forward or listens to it."""
    hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks)
    changed = type(module).forward is not kind.forward or "forward" in module.__dict__
    return not changed and not any(hooks) and not module._backward_pre_hooks


def conv3x3(
    in_channels: int, channels: int, norm: MakeNorm, *, stride: int = 1, bias: bool = False
) -> ConvNorm:
    """A padded 3x3 convolution and its norm."""
    conv = SpikeConv2d(in_channels, channels, 3, stride=stride, padding=1, bias=bias)
    return ConvNorm(conv, norm(channels))


def conv1x1(in_channels: int, channels: int, norm: MakeNorm, *, stride: int = 1) -> ConvNorm:
    """A 1x1 convolution and its norm, the projection of a shortcut."""
    conv = SpikeConv2d(in_channels, channels, 1, stride=stride, bias=False)
    return ConvNorm(conv, norm(channels))


def encode(stem: ConvNorm, neuron: nn.Module, x: Tensor, T: int) -> Tensor:
    """The spikes `[T, B, C, H, W]` of the first neurons.

    x: a static image `[B, C, H, W]`, shown for T steps, or a sequence `[T', B, C, H, W]`. A static
    image gives the same current at all steps, so its convolution and norm run once.
    """
    if x.ndim == 5:
        return stem.fire(x, neuron)
    return stem.fire(x.unsqueeze(0), neuron, repeats=T)


def initialize(net: nn.Module) -> None:
    """The family's initialization: conv N(0, 2 / (k k C_out)), linear N(0, 1 / C_in^2), no bias."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            k_h, k_w = module.kernel_size
            nn.init.normal_(module.weight, 0, math.sqrt(2 / (k_h * k_w * module.out_channels)))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 1 / module.in_features)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def consecutive(layers: nn.Sequential, name: str) -> dict[str, tuple[str, ...]]:
    """Each convolution of a sequence under what stands right before it, for `direct_readers`.

    name: of the sequence, which gets the input of the network. The maximum of spikes is a spike: a
    max pooling counts for nothing, and so does a dropout that drops nothing.
    """
    found: dict[str, tuple[str, ...]] = {}
    before = ""
    for child, module in layers.named_children():
        if isinstance(module, ConvNorm):
            found[before] = (f"{name}.{child}",)
        is_maximum = type(module) is OverTime and type(module.layer) is nn.MaxPool2d
        if not is_maximum and not (type(module) is Dropout and module.p == 0):
            before = f"{name}.{child}"
    return found


def halved(size: int, times: int) -> int:
    """The side of a map after so many poolings by two; `UserError` where they leave a rest."""
    side, rest = divmod(size, 2**times)
    if rest or side < 1:
        what = f"is not divisible by {2**times}: the network halves the map {times} times"
        raise UserError("bad network", [Problem(f"image_size = {size}", what)])
    return side


def scaled(channels: int, width: float) -> int:
    """A number of channels times the width of the network, at least one."""
    return max(1, round(channels * width))
