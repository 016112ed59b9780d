"""The random numbers of the augmentations against SplitMix64 in Python's whole numbers."""

import pytest
import torch
from torch import Tensor

from rmploss.data._draws import below, draw, mix, stream, threshold

BITS = 2**64 - 1
# The first outputs of SplitMix64 from the state 1234567, as its reference implementation prints.
PUBLISHED = (
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
    4593380528125082431,
    16408922859458223821,
)


def _number(state: int, n: int) -> int:
    z = (state + n * 0x9E3779B97F4A7C15) & BITS
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
    return z ^ (z >> 31)


def test_the_output_function_is_that_of_splitmix64() -> None:
    assert tuple(_number(1234567, n) for n in range(1, 6)) == PUBLISHED
    states = 1234567 + torch.arange(1, 6) * (0x9E3779B97F4A7C15 - 2**64)
    assert [z % 2**64 for z in mix(states).tolist()] == list(PUBLISHED)


def test_a_word_is_the_high_half_of_the_number_at_its_counter() -> None:
    key, samples = stream(7, "augment"), torch.tensor([0, 5, 2**32 - 1])
    for epoch in (0, 3, 2**23 - 1):
        words = draw(key, torch.tensor(epoch), samples, 4)
        expected = [
            [_number(key, (epoch << 40) + (s << 8) + n) >> 32 for s in samples.tolist()]
            for n in range(1, 5)
        ]
        assert words.tolist() == expected
    assert stream(7, "augment") != stream(8, "augment") != stream(8, "other")


def test_whole_numbers_are_uniform_and_bounded() -> None:
    words = draw(stream(0, "test"), torch.tensor(1), torch.arange(60000), 2)
    for n in (2, 9, 25):
        counts = below(words[0], n).bincount(minlength=n)
        assert len(counts) == n
        # The deviation of a count is below sqrt(N / n); five of them.
        assert bool(((counts - 60000 / n).abs() < 5 * (60000 / n) ** 0.5).all())
    assert below(torch.tensor([0, 2**32 - 1]), 25).tolist() == [0, 24]
    assert abs(float((words[0] < threshold(0.3)).double().mean()) - 0.3) < 0.01
    assert abs(_correlation(words[0], words[1])) < 0.02
    assert (threshold(0.0), threshold(1.0)) == (0, 2**32)


def _correlation(a: Tensor, b: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([a, b]).double())[0, 1])


@pytest.mark.gpu
def test_a_gpu_draws_the_same() -> None:
    key, samples = stream(7, "augment"), torch.arange(1000)
    expected = draw(key, torch.tensor(3), samples, 10)
    found = draw(key, torch.tensor(3, device="cuda"), samples.cuda(), 10)
    assert torch.equal(found.cpu(), expected)
