"""Splits held as one tensor, on the device that trains.

A batch is an index into the tensor, and its augmentation is arithmetic on the whole batch: the same
pixels on every device (docs/training.md, "Data on the device").
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from rmploss.data._augment import FLIP_DRAWS, ROLL_DRAWS, flip_and_roll
from rmploss.data._base import Key
from rmploss.data._draws import draw, stream

DEVICE_BYTES = 4 * 2**30
"""The largest split, in bytes, that is moved to a GPU; batches of a larger one are made on the CPU
and then moved, with the same pixels."""


class Prepare(nn.Module):
    """From stored samples to the network's inputs, a batch at a time.

    draws: the number of random words that a sample takes; 0: no augmentation.

    A subclass defines `forward(stored, words)`: stored is `[B, ...]`, words is int64 `[draws, B]`
    (`_draws.draw`), and the result is float32 `[B, C, H, W]` or `[B, T, C, H, W]`. It reads no
    value of a tensor on a GPU, so that a CUDA graph can hold it.
    """

    draws: int = 0


def prepared(prepare: Prepare, stored: Tensor) -> Tensor:
    """The network's input of one sample without augmentation, float32.

    prepare: with no draws.
    stored: as in `InMemory`, without the first axis.
    """
    return prepare(stored.unsqueeze(0), torch.empty(0, 1, dtype=torch.int64)).squeeze(0)


@dataclass(frozen=True, eq=False)
class InMemory:
    """Samples held as one tensor.

    stored: `[N, ...]`, mostly uint8.
    labels: int64 `[N]`.
    prepare: from stored samples to inputs.
    seed: of the augmentation.
    ids: int64 `[N]`, the number of each sample in its whole split: sample i gets the augmentation
        of number `ids[i]`. None: its own index.
    """

    stored: Tensor
    labels: Tensor
    prepare: Prepare
    seed: int = 0
    ids: Tensor | None = None

    def __len__(self) -> int:
        return len(self.stored)

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        indices = torch.tensor([key.index], device=self.stored.device)
        x, labels = self.batch(indices, torch.tensor(key.epoch, device=self.stored.device))
        return x.squeeze(x.ndim - 4), int(labels)

    def batch(self, indices: Tensor, epoch: Tensor) -> tuple[Tensor, Tensor]:
        """Inputs float32 `[B, C, H, W]` or `[T, B, C, H, W]`, and labels int64 `[B]`.

        indices: int64 `[B]`, on the device of the samples.
        epoch: int64 `[]`, likewise; with seed and index it decides the augmentation.
        """
        numbers = indices if self.ids is None else self.ids[indices]
        words = draw(stream(self.seed, "augment"), epoch, numbers, self.prepare.draws)
        x = self.prepare(self.stored.index_select(0, indices), words)
        if x.ndim == 5:
            x = x.transpose(0, 1).contiguous()
        return x, self.labels[indices]

    def content(self, index: int) -> bytes:
        """The stored bytes of a sample."""
        return self.stored[index].cpu().contiguous().numpy().tobytes()

    def select(self, indices: Tensor) -> "InMemory":
        """Some of the samples; each keeps its augmentation.

        indices: int64 `[n]`, on any device.
        """
        indices = indices.to(self.stored.device)
        numbers = indices if self.ids is None else self.ids[indices]
        stored, labels = self.stored[indices], self.labels[indices]
        return replace(self, stored=stored, labels=labels, ids=numbers)

    def to(self, device: torch.device) -> "InMemory":
        """The same samples on a device, if they are at most `DEVICE_BYTES`."""
        if device == self.stored.device or self.stored.nbytes > DEVICE_BYTES:
            return self
        return replace(
            self,
            stored=self.stored.to(device),
            labels=self.labels.to(device),
            prepare=copy.deepcopy(self.prepare).to(device),
            ids=None if self.ids is None else self.ids.to(device),
        )


class Standardize(nn.Module):
    """(x / 255 - mean) / std of uint8 images `[B, C, H, W]`, as float32.

    mean, std: of each channel, in 0..1.
    white: the stored value of 1.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Sequence[float], std: Sequence[float], white: int = 255) -> None:
        super().__init__()
        self.white = white
        # `white` is folded into the constants: two passes over the pixels instead of three.
        for name, value in (("mean", mean), ("std", std)):
            constant = white * torch.tensor(value).view(-1, 1, 1)
            self.register_buffer(name, constant, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Mean 0 and variance 1."""
        return torch.sub(x, self.mean).div_(self.std)


class PrepareFrames(Prepare):
    """Frames uint8 `[B, T, 2, H, W]` -> float32; a sample's frames get the same flip and roll.

    The paper's augmentation of events (section 5, "Preprocessing"): flip, roll within 5 pixels.

    augment: False: none.
    """

    def __init__(self, augment: bool) -> None:
        super().__init__()
        self.draws = (FLIP_DRAWS + ROLL_DRAWS) * augment

    def forward(self, frames: Tensor, words: Tensor) -> Tensor:
        """The network's inputs."""
        return (flip_and_roll(frames, 5, words) if self.draws else frames).float()
