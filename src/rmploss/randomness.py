"""Derived randomness: every random number is a function of (seed, purpose, epoch, index).

No generator state is carried from step to step: the order of the data and its augmentation do not
depend on workers, ranks or interruptions, and a checkpoint holds no such state.
"""

import hashlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch

CPU = torch.device("cpu")


def derive(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed for one purpose: the first bytes of SHA-256 over all the parts."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """A CPU generator for one purpose, e.g. `generator(seed, "order", epoch)`."""
    return torch.Generator().manual_seed(derive(seed, *purpose))


def default_generators(device: torch.device = CPU) -> list[torch.Generator]:
    """PyTorch's default generators of the CPU and of a device: those that modules draw from."""
    if device.type != "cuda":
        return [torch.default_generator]
    torch.cuda.init()  # before that, there are no generators of GPUs
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]


@contextmanager
def generators_kept(device: torch.device = CPU) -> Iterator[None]:
    """Restore the states of the default generators after the block."""
    with ExitStack() as stack:
        for each in default_generators(device):
            stack.callback(each.set_state, each.get_state())
        yield


@contextmanager
def seeded(seed: int, *purpose: str | int, device: torch.device = CPU) -> Iterator[None]:
    """Seed PyTorch's default generators for one purpose inside the block; restore them afterwards.

    seed, purpose: see `derive`.
    device: besides the CPU's generator, that of this device is seeded. A CUDA graph that is
        replayed inside the block draws by the seed of the block, not by that of its capture.

    For code that takes no generator, such as torchvision's transforms and dropout.
    """
    with generators_kept(device):
        for each in default_generators(device):
            each.manual_seed(derive(seed, *purpose))
        yield
