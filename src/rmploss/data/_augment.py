"""Augmentations of a whole batch, as integer arithmetic.

x is `[B, ..., H, W]`; one draw of a sample serves all its leading dimensions (channels, time).
words are random words, int64 `[B]` each, from `_draws.draw`. The pixels are the same on every
device and for every way to cut an epoch into batches; nothing here reads a value of a tensor.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from rmploss.data._draws import below

CROP_DRAWS, FLIP_DRAWS, ROLL_DRAWS, CUTOUT_DRAWS = 2, 1, 2, 2
"""How many words an augmentation takes."""


def crop_and_flip(x: Tensor, pad: int, words: Tensor) -> Tensor:
    """Pad x by zeros, cut out random windows of its size, mirror each left to right in half of all.

    pad: pixels on every side.
    words: `[CROP_DRAWS + FLIP_DRAWS, B]`.
    """
    return _cropped(x, pad, words[:2], _flips(words[2]))


def crop(x: Tensor, pad: int, words: Tensor) -> Tensor:
    """Pad x by `pad` zeros on every side and cut out random windows of its size.

    words: `[CROP_DRAWS, B]`.
    """
    return _cropped(x, pad, words, None)


def flip_and_roll(x: Tensor, most: int, words: Tensor) -> Tensor:
    """Mirror half of all samples left to right, then shift each cyclically along H and along W.

    most: of the shifts, which are whole numbers in -most..most.
    words: `[FLIP_DRAWS + ROLL_DRAWS, B]`.
    """
    H, W = x.shape[-2:]
    flips = _flips(words[0])
    down, right = below(words[1:], 2 * most + 1) - most
    # A mirror after the shift is the shift to the other side after the mirror.
    rows, columns = _window(H, W, -down, torch.where(flips == 1, right, -right), flips)
    return _taken(x, rows % H, columns % W)


def cutout(x: Tensor, side: int, words: Tensor) -> Tensor:
    """Set one square of every sample to zero (arXiv 1708.04552).

    Its center is uniform over the pixels, and it is clipped at the borders.

    side: the length of its side in pixels, even.
    words: `[CUTOUT_DRAWS, B]`.
    """
    inside = []
    for word, size in zip(words, x.shape[-2:], strict=True):
        away = torch.arange(size, device=x.device) - below(word, size).unsqueeze(1)
        inside.append((away >= -(side // 2)) & (away < side // 2))
    hole = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return x * _over_channels(~hole, x)


def _flips(word: Tensor) -> Tensor:
    """1 for a mirrored sample, in half of all cases, else 0."""
    return below(word, 2)


def _cropped(x: Tensor, pad: int, words: Tensor, flips: Tensor | None) -> Tensor:
    """Windows of the padded x, mirrored where `flips` is 1."""
    H, W = x.shape[-2:]
    down, right = below(words, 2 * pad + 1)
    rows, columns = _window(H, W, down, right, flips)
    return _taken(F.pad(x, (pad, pad, pad, pad)), rows, columns)


def _window(
    H: int,
    W: int,
    down: Tensor,
    right: Tensor,
    flips: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The rows i + down and the columns j + right of a window, `[B, H]` and `[B, W]`.

    flips: where it is 1, j counts back; None: nowhere.
    """
    rows, columns = torch.arange(H, device=down.device), torch.arange(W, device=down.device)
    if flips is not None:
        columns = columns + flips.unsqueeze(1) * (W - 1 - 2 * columns)
    return rows + down.unsqueeze(1), columns + right.unsqueeze(1)


def _taken(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The pixels of x at rows `[B, H']` and columns `[B, W']`, `[B, ..., H', W']`."""
    pixel = (rows * x.shape[-1]).unsqueeze(2) + columns.unsqueeze(1)
    flat = x.flatten(-2)
    index = _over_channels(pixel.flatten(1), flat).expand(*flat.shape[:-1], -1)
    return flat.gather(-1, index).view(*x.shape[:-2], *pixel.shape[1:])


def _over_channels(y: Tensor, x: Tensor) -> Tensor:
    """y `[B, ...]` with dimensions of 1 in the places of the leading dimensions of x."""
    return y.view(len(y), *[1] * (x.ndim - y.ndim), *y.shape[1:])
