"""Spikes as bits: who is believed to give spikes, and the operation `rmploss::pack`.

As in layer.py, two doors lead to the operation: the kernels themselves, and the registered one
where someone looks on. What the caller promised to be spikes is checked where the operation runs,
so that a compiled graph and a captured one check it as well.
"""

import warnings

import torch
from torch import Tensor
from torch.library import Library, register_fake

from rmploss.ops import layout
from rmploss.ops.kernels import BROKEN_PROMISE, KERNELS, words
from rmploss.ops.tracing import is_traced


def is_trusted(provider: str, x: Tensor, binary: bool | None) -> bool:
    """Whether a promise decides, unseen, that x is kept as bits: where looking is not free."""
    return bool(binary) and (is_traced(x) or not KERNELS[provider].looks_free)


def are_spikes(provider: str, x: Tensor, spikes: Tensor, binary: bool | None) -> bool:
    """Whether x is kept as bits, of which `pack` found so many. A broken promise is a warning."""
    if is_traced(x) or is_trusted(provider, x, binary):
        return bool(binary)
    seen = int(spikes) >= 0
    if binary and not seen:
        warnings.warn(f"a tensor was {BROKEN_PROMISE}", stacklevel=2)
    return seen


def pack(provider: str, x: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    """Bits `[T R, words]` of x `[T, B, C, ...]`, and their number: see `Kernels.pack`."""
    if is_traced(x):
        return torch.ops.rmploss.pack(provider, x, binary)
    return _pack(provider, x, binary)


def _pack(provider: str, x: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    return KERNELS[provider].pack(layout.rows(x, x.dtype).view(-1, x.shape[2]), binary)


# torch.library -----------------------------------------------------------------------------------

LIBRARY = Library("rmploss", "FRAGMENT")
LIBRARY.define(
    "pack(str provider, Tensor x, bool binary) -> (Tensor bits, Tensor spikes)",
    tags=(torch.Tag.pt2_compliant_tag,),
)
LIBRARY.impl("pack", _pack, "CompositeExplicitAutograd")


@register_fake("rmploss::pack", lib=LIBRARY)
def _(provider: str, x: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    C = x.shape[2]
    bits = x.new_empty(x.numel() // C, words(C), dtype=torch.int64)
    return bits, x.new_empty((), dtype=torch.int64)
