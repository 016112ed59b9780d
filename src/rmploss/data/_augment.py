"""Augmentations of a whole batch, as integer arithmetic.

x is `[B, ..., H, W]`; one draw of a sample serves all its leading dimensions (channels, time).
words are random words, int64 `[B]` each, from `_draws.draw`. The pixels are the same on every
device and for every way to cut an epoch into batches; nothing here reads a value of a tensor.
"""

import torch
from torch import Tensor

from rmploss.data._draws import below

CROP_DRAWS, FLIP_DRAWS, ROLL_DRAWS, CUTOUT_DRAWS = 2, 1, 2, 2
"""How many words an augmentation takes."""


def crop_and_flip(x: Tensor, pad: int, words: Tensor) -> Tensor:
    """Pad x by zeros, cut out random windows of its size, mirror each left to right in half of all.

    pad: pixels on every side.
    words: `[CROP_DRAWS + FLIP_DRAWS, B]`.
    """
    down, right = below(words[:2], 2 * pad + 1) - pad
    return _take_shifted(x, down, right, _flips(words[2]), wrap=False)


def crop(x: Tensor, pad: int, words: Tensor) -> Tensor:
    """Pad x by `pad` zeros on every side and cut out random windows of its size.

    words: `[CROP_DRAWS, B]`.
    """
    down, right = below(words, 2 * pad + 1) - pad
    return _take_shifted(x, down, right, torch.zeros_like(down), wrap=False)


def flip_and_roll(x: Tensor, most: int, words: Tensor) -> Tensor:
    """Mirror half of all samples left to right, then shift each cyclically along H and along W.

    most: of the shifts, which are whole numbers in -most..most.
    words: `[FLIP_DRAWS + ROLL_DRAWS, B]`.
    """
    flips = _flips(words[0])
    down, right = below(words[1:], 2 * most + 1) - most
    # A mirror after the shift is the shift to the other side after the mirror.
    return _take_shifted(x, -down, torch.where(flips == 1, right, -right), flips, wrap=True)


def cutout(x: Tensor, side: int, words: Tensor) -> Tensor:
    """Set one square of every sample to zero (arXiv 1708.04552).

    Its center is uniform over the pixels, and it is clipped at the borders.

    side: the length of its side in pixels, even.
    words: `[CUTOUT_DRAWS, B]`.
    """
    H, W = x.shape[-2:]
    inside = [
        (center.unsqueeze(1) - side // 2 <= places) & (places < center.unsqueeze(1) + side // 2)
        for center, places in (
            (below(words[0], H), torch.arange(H, device=x.device)),
            (below(words[1], W), torch.arange(W, device=x.device)),
        )
    ]
    hole = inside[0].unsqueeze(2) & inside[1].unsqueeze(1)
    return x * _over_channels(~hole, x)


def _flips(word: Tensor) -> Tensor:
    """1 for a mirrored sample, in half of all cases, else 0."""
    return below(word, 2)


def _take_shifted(x: Tensor, down: Tensor, right: Tensor, flips: Tensor, wrap: bool) -> Tensor:
    """Pixel (i, j) of the result is pixel (i + down, j + right) of x; j counts back if mirrored.

    wrap: beyond the border x goes on cyclically; False: with zeros.
    """
    H, W = x.shape[-2:]
    flips = flips.unsqueeze(1)
    rows = torch.arange(H, device=x.device) + down.unsqueeze(1)
    columns = torch.arange(W, device=x.device)
    columns = columns + flips * (W - 1 - 2 * columns) + right.unsqueeze(1)
    pixel = ((rows % H) * W).unsqueeze(2) + (columns % W).unsqueeze(1)
    flat = x.flatten(-2)
    index = _over_channels(pixel.flatten(1), flat).expand_as(flat)
    taken = flat.gather(-1, index).view(x.shape)
    if wrap:
        return taken
    inside = ((rows >= 0) & (rows < H)).unsqueeze(2) & ((columns >= 0) & (columns < W)).unsqueeze(1)
    return taken * _over_channels(inside, x)  # a product: torch's masked_fill takes 5 times longer


def _over_channels(y: Tensor, x: Tensor) -> Tensor:
    """y `[B, ...]` with dimensions of 1 in the places of the leading dimensions of x."""
    return y.view(len(y), *[1] * (x.ndim - y.ndim), *y.shape[1:])
