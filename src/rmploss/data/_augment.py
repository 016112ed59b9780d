"""Augmentations of one sample; all draw from torch's global generator (see `randomness.seeded`).

x is `[..., H, W]`; one draw serves all leading dimensions (channels, time).
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


def crop(x: Tensor, pad: int) -> Tensor:
    """Pad x by `pad` zeros on every side and cut out a random window of its original size."""
    top, left = _integers(0, 2 * pad, 2)
    H, W = x.shape[-2:]
    return F.pad(x, (pad, pad, pad, pad))[..., top : top + H, left : left + W]


def flip(x: Tensor) -> Tensor:
    """Mirror x left to right with probability 1/2."""
    return x.flip(-1) if torch.rand(()) < 0.5 else x


def roll(x: Tensor, most: int) -> Tensor:
    """Shift x cyclically along H and along W, by two random whole numbers in -most..most."""
    down, right = _integers(-most, most, 2)
    return x.roll((down, right), dims=(-2, -1))


def cutout(x: Tensor, side: int) -> Tensor:
    """Set one square to zero, with a random center, clipped at the borders (arXiv 1708.04552).

    side: the length of its side in pixels, even.
    """
    H, W = x.shape[-2:]
    row, column = int(torch.randint(H, ())), int(torch.randint(W, ()))
    half = side // 2
    x = x.clone()
    x[..., max(row - half, 0) : row + half, max(column - half, 0) : column + half] = 0
    return x


def _integers(low: int, high: int, n: int) -> list[int]:
    """n random whole numbers in low..high, both included."""
    return torch.randint(low, high + 1, (n,)).tolist()


@dataclass(frozen=True)
class PrepareFrames:
    """Frames uint8 `[T, 2, H, W]` -> float32; all frames of a sample get the same flip and roll.

    The paper's augmentation of events (section 5, "Preprocessing"): flip, roll within 5 pixels.
    """

    augment: bool

    def __call__(self, frames: Tensor) -> Tensor:
        """The network's input for one recording."""
        if self.augment:
            frames = roll(flip(frames), most=5)
        return frames.float()
