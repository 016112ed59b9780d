"""Derived randomness: every random number is a function of (seed, purpose, epoch, index).

Nothing random is carried from step to step. So the order of the data and its augmentation do not
depend on workers, ranks or interruptions, and a checkpoint holds no generator state.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: the first bytes of SHA-256 over all the parts."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `generator(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


@contextmanager
def seeded(seed: int, *purpose: str | int) -> Iterator[None]:
    """Torch's global CPU generator, derived for one purpose inside the block, restored after it.

    For code that takes no generator, as torchvision's transforms do.
    """
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(derive(seed, *purpose))
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
