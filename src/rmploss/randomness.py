"""Derived randomness: every random number is a function of (seed, purpose, epoch, index).

No generator state is carried from step to step: the order of the data and its augmentation do not
depend on workers, ranks or interruptions, and a checkpoint holds no such state.
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
    """Seed torch's global CPU generator for one purpose inside the block; restore it afterwards.

    For code that takes no generator, such as torchvision's transforms.
    """
    state = torch.random.get_rng_state()
    torch.default_generator.manual_seed(derive(seed, *purpose))
    try:
        yield
    finally:
        torch.random.set_rng_state(state)
