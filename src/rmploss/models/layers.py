"""The parts of spiking networks: convolution and norm, pooling, initialization."""

import math
from collections.abc import Callable
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from rmploss import ops
from rmploss.conv import SpikeConv2d
from rmploss.errors import Problem, UserError
from rmploss.models.factorized import FactorizedConv2d
from rmploss.models.flow import PassesSpikes, calls, through
from rmploss.models.inference import inferred
from rmploss.neurons import LIF
from rmploss.norm import NoNorm, TDBatchNorm2d, fold
from rmploss.ops import Spikes, avg_pool2d, dense_of

MakeNeuron = Callable[[int], nn.Module]
"""Makes the neurons of that many channels."""
MakeNorm = Callable[[int], nn.Module]
"""Makes the normalization of that many channels."""


def placed(neuron: nn.Module, place: Literal["inner", "sum"]) -> nn.Module:
    """The neurons, with their place in a residual block noted: see `SpikingLayer.place`."""
    setattr(neuron, "place", place)  # noqa: B010  a module's own types are tensors
    return neuron


class OverTime(PassesSpikes):
    """A layer without memory applied to every time step: `[T, B, ...]` as one batch of T*B."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """The layer's output `[T, B, ...]`; the maximum of spikes is a spike."""
        if isinstance(x, Spikes) and calls(self.layer, SpikeConv2d):
            return self.layer.forward(x)
        layer = self.layer
        if isinstance(x, Spikes) and isinstance(layer, AvgPool2d) and calls(layer, AvgPool2d):
            means = layer.of_bits(x)
            if means is not None:
                return means
        unchanged = isinstance(x, Spikes) and x.is_unchanged
        y = self.layer(dense_of(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        if unchanged and calls(self.layer, nn.MaxPool2d):
            return x.maximum(y)
        return y


class Shortcut(PassesSpikes, nn.Identity):  # pyright: ignore[reportIncompatibleMethodOverride]
    """An identity shortcut."""

    def forward_spikes(self, x: Tensor | Spikes) -> Tensor | Spikes:
        """x."""
        return x


class AvgPool2d(nn.AvgPool2d):
    """`torch.nn.AvgPool2d` that keeps nothing for backward where the squares tile the map."""

    def forward(self, input: Tensor) -> Tensor:
        """The means `[N, C, H', W']`."""
        k = self.kernel_size
        ops.require_map(input, (k, k) if isinstance(k, int) else k)
        if not isinstance(k, int) or not self._is_plain or input.ndim != 4:
            return super().forward(input)
        if input.shape[-2] % k or input.shape[-1] % k:
            return super().forward(input)
        return avg_pool2d(input, k)

    def of_bits(self, x: Spikes) -> Tensor | None:
        """The means `[T, B, C, H', W']` of spikes, of their bits; None where numbers are pooled."""
        return x.pooled() if self.kernel_size == 2 and self._is_plain else None

    @property
    def _is_plain(self) -> bool:
        return (
            self.stride == self.kernel_size and self.padding == 0 and self.divisor_override is None
        )


OVERRIDDEN = frozenset({"convolve", "forward_spikes"})
"""Methods of `ConvNorm` that an object may have instead of its class."""


class ConvNorm(PassesSpikes):
    """Convolution and norm, `[T, B, C, H, W]` to `[T, B, C', H', W']`; foldable for inference."""

    reads_bits = True

    def __init__(self, conv: nn.Conv2d, norm: nn.Module) -> None:
        super().__init__()
        self.conv = conv
        self.norm: nn.Module | None = None if isinstance(norm, NoNorm) else norm
        self._kept = ops.Kept()

    def train(self, mode: bool = True) -> Self:
        """As of every module; in training nothing is kept for inference, and nothing settled."""
        if mode:
            self._kept = ops.Kept()
        return super().train(mode)

    def settle(self) -> None:
        """See `lifecycle.Settling`."""
        self._kept.is_settled = True

    def _apply(self, fn: Any, recurse: bool = True) -> Self:
        self._kept.forget()  # what another device or type reads is made anew
        return super()._apply(fn, recurse)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.__dict__.setdefault("_kept", ops.Kept())  # a module of an earlier version has none

    def forward_spikes(self, x: Tensor | Spikes, repeats: int = 1) -> Tensor:
        """The input current of the next neurons; repeats: x stands for that many equal steps."""
        y = self.convolve(x)
        return y if self.norm is None else self.norm(y, repeats)

    def convolve(self, x: Tensor | Spikes) -> Tensor:
        """The convolution of x, before the norm. A tensor is not looked at for being spikes."""
        conv = self.conv
        if not calls(conv, SpikeConv2d) and not calls(conv, FactorizedConv2d):
            return conv(dense_of(x).flatten(0, 1)).unflatten(0, x.shape[:2])
        assert isinstance(conv, SpikeConv2d | FactorizedConv2d)
        if isinstance(x, Spikes):
            return conv.convolve(x)
        return conv.convolve(x.flatten(0, 1), look=False).unflatten(0, x.shape[:2])

    def fire(
        self,
        x: Tensor | Spikes,
        neuron: nn.Module,
        *,
        residual: Tensor | Spikes | None = None,
        repeats: int = 1,
        dense: bool = True,
    ) -> Any:
        """The spikes of `neuron` on norm(conv(x)) + residual, `[T, B, C', H', W']`.

        x: `[T, B, C, H, W]`; or `[1, B, C, H, W]` that stands for `repeats` equal steps:
            convolution and norm run once, and the result, running statistics included, is that of
            running them as often.
        dense: as in `fire`.
        """
        if isinstance(x, Spikes) and repeats == 1 and self._runs_in_one_pass():
            spikes = inferred(self, self._kept, x, neuron, residual)
            if spikes is not None:
                return spikes
        shortcut: Any = {"residual": residual, "repeats": repeats}
        if not calls(self, PassesSpikes):
            current = self(dense_of(x), repeats=repeats)
            return fire(current, None, neuron, **shortcut, dense=dense)
        return fire(self.convolve(x), self.norm, neuron, **shortcut, dense=dense)

    def _runs_in_one_pass(self) -> bool:
        """True where no gradient and no class or method of its own asks for single operations."""
        own = type(self) is not ConvNorm or not OVERRIDDEN.isdisjoint(self.__dict__)
        return not own and not torch.is_grad_enabled()

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
    residual: Tensor | Spikes | None = None,
    repeats: int = 1,
    dense: bool = True,
) -> Any:
    """The spikes `[T, B, C, H, W]` of `neuron` on norm(y) + residual, in one operation if it can.

    They are `Spikes` where the neuron is binary and its backend has bits, else a tensor.

    y: `[T, B, C, H, W]`, or `[1, B, C, H, W]` that stands for `repeats` equal steps.
    dense: whether the next layer reads numbers on a GPU; False for a pooling, which reads bits.
    """
    shortcut: Any = {"residual": residual, "repeats": repeats}
    direct = calls(neuron, LIF)
    if direct and (norm is None or calls(norm, TDBatchNorm2d)):
        return neuron.forward(y, norm=norm, **shortcut, as_spikes=True, dense=dense)
    current = y if norm is None else norm(y, repeats)
    if direct:
        return neuron.forward(current, **shortcut, as_spikes=True, dense=dense)
    if repeats > 1:
        current = current.expand(repeats, *current.shape[1:])
    spikes = neuron(current if residual is None else current + dense_of(residual))
    return Spikes.found_in(spikes) if getattr(neuron, "is_binary", False) else spikes


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


def encode(stem: ConvNorm, neuron: nn.Module, x: Tensor, T: int) -> Any:
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


def in_sequence(layers: nn.Sequential, x: Tensor, T: int) -> Any:
    """The output of convolutions, each followed by its neurons, and of what stands between them.

    x: as in `encode`, which the first convolution and its neurons do.
    """
    first, neuron, *rest = layers.children()
    assert isinstance(first, ConvNorm)
    spikes = encode(first, neuron, x, T)
    while rest:
        layer = rest.pop(0)
        if isinstance(layer, ConvNorm):
            neuron = rest.pop(0)
            spikes = layer.fire(spikes, neuron, dense=not (rest and _is_pooling(rest[0])))
        else:
            spikes = through(layer, spikes)
    return spikes


def _is_pooling(layer: nn.Module) -> bool:
    return isinstance(layer, OverTime) and isinstance(layer.layer, AvgPool2d)


def halved(size: int, times: int) -> int:
    """The side of a map after so many poolings by two; `UserError` where they leave a rest."""
    side, rest = divmod(size, 2**times)
    if rest or side < 1:
        what = f"is not divisible by {2**times}: the network halves the map {times} times"
        raise UserError("bad network", [Problem(f"image_size = {size}", what)])
    return side


def scaled(channels: int, width: float) -> int:
    """A number of channels times the width of the network, at least one.

    Raises `UserError` for a width that is not positive and finite.
    """
    if not 0 < width < math.inf:
        problem = Problem(f"width = {width!r}", "must be positive and finite", "width=1.0")
        raise UserError("bad network", [problem])
    return max(1, round(channels * width))
