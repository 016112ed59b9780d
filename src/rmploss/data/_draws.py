"""Counter-based random numbers: each is a function of (seed, purpose, epoch, sample, draw).

SplitMix64 (Steele, Lea & Flood, OOPSLA 2014, "Fast splittable pseudorandom number generators"):
number n of the stream with the key k is mix(k + n gamma) mod 2^64. A stream has no state to carry,
so any of its numbers is computed by itself, for a whole batch at once, in tensor arithmetic. The
counter n holds the epoch in bits 40 to 62, the sample in bits 8 to 39 and the draw below. All of
it is int64 arithmetic that wraps, hence equal on every device.
"""

import torch
from torch import Tensor

from rmploss.randomness import derive

_GAMMA = 0x9E3779B97F4A7C15
_MIX = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_WORD = 32


def stream(seed: int, purpose: str) -> int:
    """The key of the stream for one purpose."""
    return derive(seed, purpose)


def draw(key: int, epoch: Tensor, samples: Tensor, n: int) -> Tensor:
    """n random words per sample, each uniform in 0 .. 2^32 - 1; int64 `[n, B]`.

    key: from `stream`.
    epoch: int64 `[]`, below 2^23.
    samples: int64 `[B]`, below 2^32.
    n: at most 255.
    """
    first = torch.add(samples << 8, epoch, alpha=1 << 40)
    counter = first + torch.arange(1, n + 1, device=samples.device).unsqueeze(1)
    return _shift(mix(counter * _signed(_GAMMA) + key), 64 - _WORD)


def below(words: Tensor, n: int) -> Tensor:
    """Whole numbers 0 .. n - 1 from words: floor(n w / 2^32), uniform up to n / 2^32."""
    return (words * n) >> _WORD


def threshold(probability: float) -> int:
    """The number t for which `word < t` has that probability."""
    return round(probability * 2**_WORD)


def mix(z: Tensor) -> Tensor:
    """The output function of SplitMix64, int64 of any shape."""
    z = (z ^ _shift(z, 30)) * _signed(_MIX[0])
    z = (z ^ _shift(z, 27)) * _signed(_MIX[1])
    return z ^ _shift(z, 31)


def _shift(z: Tensor, bits: int) -> Tensor:
    """z >> bits of z as an unsigned number: int64's own shift repeats the sign."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _signed(constant: int) -> int:
    """An unsigned constant of 64 bits as the int64 of the same bits."""
    return constant - (1 << 64) if constant >> 63 else constant
