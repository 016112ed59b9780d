from collections import Counter

import pytest
import torch
from torch import Tensor

from rmploss.data._augment import PrepareFrames, crop, cutout, flip, roll
from rmploss.randomness import seeded


@pytest.fixture(autouse=True)
def _fixed_randomness():
    with seeded(0, "test"):
        yield


def _single(H: int, W: int, row: int, column: int) -> Tensor:
    """One white pixel."""
    x = torch.zeros(1, H, W)
    x[0, row, column] = 1
    return x


def test_crop_reaches_every_shift_and_pads_with_zeros() -> None:
    shifts = Counter()
    for _ in range(300):
        x = crop(_single(5, 5, 2, 2), pad=1)
        assert x.shape == (1, 5, 5)
        assert x.sum() == 1
        shifts[divmod(int(x.argmax()), 5)] += 1
    assert set(shifts) == {(row, column) for row in (1, 2, 3) for column in (1, 2, 3)}
    assert max(shifts.values()) < 3 * min(shifts.values())
    assert any(crop(torch.ones(1, 5, 5), pad=1)[0, 0].sum() == 0 for _ in range(50))


def test_flip_mirrors_columns_half_of_the_time() -> None:
    x = torch.arange(12).view(1, 3, 4)
    flipped = [not torch.equal(flip(x), x) for _ in range(400)]
    assert 140 < sum(flipped) < 260
    seen = {tuple(flip(x).flatten().tolist()) for _ in range(50)}
    assert seen == {tuple(x.flatten().tolist()), tuple(x.flip(-1).flatten().tolist())}


def test_roll_wraps_and_moves_both_ways_independently() -> None:
    places = {divmod(int(roll(_single(9, 9, 4, 4), most=2).argmax()), 9) for _ in range(400)}
    assert places == {(row, column) for row in range(2, 7) for column in range(2, 7)}
    assert roll(torch.ones(1, 4, 4), most=3).sum() == 16


def test_cutout_is_one_square_centered_anywhere_clipped_at_borders() -> None:
    x = torch.full((3, 32, 32), 9, dtype=torch.uint8)
    sizes = set()
    for _ in range(600):
        hole = cutout(x, side=16) == 0
        rows, columns = hole[0].any(1).nonzero(), hole[0].any(0).nonzero()
        height, width = len(rows), len(columns)
        assert torch.equal(hole[0], hole[1]), "a hole goes through all channels"
        assert hole[0].sum() == height * width == (rows.max() - rows.min() + 1) * width
        sizes |= {height, width}
    assert min(sizes) == 8
    assert max(sizes) == 16
    assert bool((x == 9).all()), "the data set itself must not change"


def test_frames_of_a_sample_move_together() -> None:
    frames = (torch.rand(2, 12, 12) < 0.3).to(torch.uint8).expand(4, 2, 12, 12)
    x = PrepareFrames(augment=True)(frames)
    assert x.dtype == torch.float32
    assert x.shape == frames.shape
    assert all(torch.equal(x[t], x[0]) for t in range(4))
    assert not torch.equal(x, frames.float())
    assert torch.equal(PrepareFrames(augment=False)(frames), frames.float())
