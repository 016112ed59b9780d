"""Predictions of a trained network: the confusion matrix, examples with their spikes over time."""

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rmploss.lifecycle import evaluating
from rmploss.neurons import SpikingLayer
from rmploss.stats import name_layers

INPUT_SIZE, MAP_SIZE = 64, 32
"""The largest height and width of the pictures of an input, and of the maps of its spikes."""

Confusion = list[tuple[int, int, int]]
"""(class, predicted class, number of samples) of every pair that occurs, sorted."""


@dataclass(frozen=True)
class Example:
    """One sample, and what a network makes of it.

    label, predicted: the class, and the predicted one.
    probability: the softmax of the predicted class.
    frames: the input, uint8 `[F, H, W]` or `[F, H, W, 3]`: F = 1 for an image, F = T for events.
    layer: the name of the first spiking layer.
    spikes: per step the share of its channels that are active at a place, times 255: uint8
        `[T, H, W]`.
    active: layer -> per step the share of its neurons whose output is not 0.
    """

    label: int
    predicted: int
    probability: float
    frames: Tensor
    layer: str
    spikes: Tensor
    active: dict[str, list[float]]


def confusion(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Confusion:
    """Count how often samples of each class are given each class.

    net: runs in evaluation mode; afterwards it is in the mode it had.
    batches: (x `[B, C, H, W]` or `[T, B, C, H, W]`, labels `[B]`).
    """
    counts: Counter[tuple[int, int]] = Counter()
    with _evaluating(net) as device:
        for x, labels in batches:
            if len(labels):
                guesses = net(x.to(device)).argmax(1).cpu()
                counts.update(zip(labels.tolist(), guesses.tolist(), strict=True))
    return [(label, guess, counts[label, guess]) for label, guess in sorted(counts)]


def examples(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> list[Example]:
    """Every sample of the batches as an `Example`; for the arguments see `confusion`."""
    name_layers(net)
    outputs: dict[str, Tensor] = {}

    def keep(neuron: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        assert isinstance(neuron, SpikingLayer)
        outputs[neuron.layer_name] = (output != 0).float().cpu()

    neurons = [module for module in net.modules() if isinstance(module, SpikingLayer)]
    hooks = [neuron.register_forward_hook(keep) for neuron in neurons]
    found: list[Example] = []
    try:
        with _evaluating(net) as device:
            for x, labels in batches:
                if len(labels):
                    outputs.clear()
                    probabilities = net(x.to(device)).float().softmax(1).cpu()
                    found += _examples(x.cpu(), labels, probabilities, outputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _examples(
    x: Tensor,
    labels: Tensor,
    probabilities: Tensor,
    outputs: dict[str, Tensor],
) -> Iterator[Example]:
    """The examples of one batch.

    x: the inputs.
    labels: `[B]`.
    probabilities: of the classes, `[B, K]`.
    outputs: layer -> 1 where its output is not 0, `[T, B, ...]`.
    """
    first = next(iter(outputs), "")
    for index, label in enumerate(labels.tolist()):
        active = {name: output[:, index] for name, output in outputs.items()}
        yield Example(
            label=label,
            predicted=int(probabilities[index].argmax()),
            probability=float(probabilities[index].max()),
            frames=_frames(x[:, index] if x.ndim == 5 else x[None, index]),
            layer=first,
            spikes=_map(active[first]) if first else torch.zeros(0, 1, 1, dtype=torch.uint8),
            active={name: each.flatten(1).mean(1).tolist() for name, each in active.items()},
        )


def _frames(x: Tensor) -> Tensor:
    """An input `[F, C, H, W]` as pixels, its least value black and its greatest white.

    Other than three channels, as the polarities of events, are summed to gray.
    """
    gray = x if x.shape[1] == 3 else x.sum(1, keepdim=True)
    small = _shrunk(gray.float(), INPUT_SIZE)
    low, high = small.min(), small.max()
    pixels = ((small - low) / (high - low).clamp(min=1e-12) * 255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1) if pixels.shape[1] == 3 else pixels[:, 0]


def _map(active: Tensor) -> Tensor:
    """The active neurons `[T, C, H, W]` or `[T, F]` of a layer as pixels, uint8 `[T, H, W]`."""
    maps = active.mean(1) if active.ndim == 4 else active.flatten(1)[:, None]
    return (_shrunk(maps[:, None], MAP_SIZE)[:, 0] * 255).round().to(torch.uint8)


def _shrunk(x: Tensor, size: int) -> Tensor:
    """Average `[N, C, H, W]` over areas, down to at most `size` rows and columns."""
    height, width = x.shape[-2:]
    return F.adaptive_avg_pool2d(x, (min(height, size), min(width, size)))


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[torch.device]:
    """Put a network into evaluation mode, without gradients; gives its device."""
    with evaluating(net), torch.no_grad():
        yield next(net.parameters()).device
