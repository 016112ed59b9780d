"""Crop, flip, roll and Cutout of a batch against the same moves of single samples."""

from collections import Counter

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rmploss.data._augment import crop, crop_and_flip, cutout, flip_and_roll
from rmploss.data._draws import below, draw


def _words(n: int, samples: int = 400) -> Tensor:
    return draw(1, torch.tensor(2), torch.arange(samples), n)


def _images(*shape: int) -> Tensor:
    """Pixels that are never zero."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize("flip", [False, True])
def test_crop_cuts_the_window_out_of_the_padded_image(flip: bool) -> None:
    x, words = _images(400, 3, 5, 7), _words(3)
    found = crop_and_flip(x, 1, words) if flip else crop(x, 1, words[:2])
    assert found.dtype == torch.uint8
    seen: Counter[tuple[int, int, int]] = Counter()
    for image, word, result in zip(x, words.T, found, strict=True):
        top, left = below(word[:2], 3).tolist()
        mirrored = int(below(word[2], 2)) if flip else 0
        window = F.pad(image, (1, 1, 1, 1))[:, top : top + 5, left : left + 7]
        assert torch.equal(result, window.flip(-1) if mirrored else window)
        seen[top, left, mirrored] += 1
    assert len(seen) == (18 if flip else 9)
    assert max(seen.values()) < 5 * min(seen.values())


def test_frames_of_a_sample_are_mirrored_and_rolled_together() -> None:
    x, words = _images(400, 2, 2, 9, 8), _words(3)
    seen = set()
    for frames, word, result in zip(x, words.T, flip_and_roll(x, 2, words), strict=True):
        mirrored, (down, right) = int(below(word[0], 2)), (below(word[1:], 5) - 2).tolist()
        expected = (frames.flip(-1) if mirrored else frames).roll((down, right), dims=(-2, -1))
        assert torch.equal(result, expected)
        seen.add((mirrored, down, right))
    assert len(seen) == 50


def test_cutout_is_one_square_centered_anywhere_clipped_at_borders() -> None:
    x, words = _images(400, 3, 32, 32), _words(2)
    before = x.clone()
    sizes = set()
    for image, word, result in zip(x, words.T, cutout(x, 16, words), strict=True):
        row, column = below(word, 32).tolist()
        expected = image.clone()
        expected[:, max(row - 8, 0) : row + 8, max(column - 8, 0) : column + 8] = 0
        assert torch.equal(result, expected)
        sizes.add(int((result[0] == 0).any(1).sum()))
    assert (min(sizes), max(sizes)) == (8, 16)
    assert torch.equal(x, before), "the data set itself must not change"
