"""The operation `rmploss::pack`: a sequence of spikes as bits, for what backward keeps of it.

As in layer.py, two doors lead to it: the kernels themselves, and the registered operation where
someone looks on. What the caller promised to be spikes is checked where the operation runs, so that
a compiled graph and a captured one check it as well.
"""

import torch
from torch import Tensor
from torch.library import Library, register_fake

from rmploss.ops.kernels import KERNELS, words
from rmploss.ops.tracing import is_traced


def pack(provider: str, x: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    """Bits `[T R, words]` of x `[T, B, C, ...]`, and their number: see `Kernels.pack`."""
    if is_traced(x):
        return torch.ops.rmploss.pack(provider, x, binary)
    return _pack(provider, x, binary)


def _pack(provider: str, x: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    """In channels-last memory without a copy."""
    return KERNELS[provider].pack(x.movedim(2, -1).reshape(-1, x.shape[2]), binary)


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
