"""The operation `rmploss::pack`: spikes as bits, for what backward keeps of a tensor.

As in layer.py, two doors lead to it: the kernels themselves, and the registered operation where
someone looks on. What the caller promised to be spikes is checked where the operation runs, so that
a compiled graph and a captured one check it as well.
"""

import torch
from torch import Tensor
from torch.library import Library, register_fake

from rmploss.ops.kernels import KERNELS, words
from rmploss.ops.tracing import is_traced


def pack(provider: str, rows: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    """Bits `[R, words]` of rows `[R, C]`, and their number: see `Kernels.pack`."""
    if is_traced(rows):
        return torch.ops.rmploss.pack(provider, rows, binary)
    return KERNELS[provider].pack(rows, binary)


# torch.library -----------------------------------------------------------------------------------

LIBRARY = Library("rmploss", "FRAGMENT")
LIBRARY.define(
    "pack(str provider, Tensor rows, bool binary) -> (Tensor bits, Tensor spikes)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def _forward(provider: str, rows: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    return KERNELS[provider].pack(rows, binary)


LIBRARY.impl("pack", _forward, "CompositeExplicitAutograd")


@register_fake("rmploss::pack", lib=LIBRARY)
def _(provider: str, rows: Tensor, binary: bool) -> tuple[Tensor, Tensor]:
    R, C = rows.shape
    return rows.new_empty(R, words(C), dtype=torch.int64), rows.new_empty((), dtype=torch.int64)
