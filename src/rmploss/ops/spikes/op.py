"""The operations `rmploss::pack` and `rmploss::unpack`: 0/1 tensors to bits and back.

Bits are words of 64 channels for each row, `[T R, words]` with R = B H W, int64. Packing is for
tensors that come from outside: the neuron kernels write the bits of their spikes themselves.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.library import Library, register_fake

from rmploss.errors import UserError
from rmploss.ops import layout
from rmploss.ops.layout import words
from rmploss.ops.spikes import native, triton
from rmploss.ops.tracing import is_capturing, is_traced

KERNELS: dict[str, ModuleType] = {"cpu": native, "triton": triton}
"""Backend -> its kernels: `pack_rows`, `unpack_rows` and `pool_rows`."""


def pack(backend: str, x: Tensor) -> tuple[Tensor, Tensor]:
    """The words `[T R, words]` of x `[T, B, C, ...]`, and the number of ones `[]`.

    The number is -1 if x is not all 0 and 1; the words then mean nothing.
    """
    if is_traced(x):
        return torch.ops.rmploss.pack(backend, x)
    return _pack(backend, x)


def pack_if_spikes(backend: str, x: Tensor) -> Tensor | None:
    """The words of x `[T, B, C, ...]` if it is all 0 and 1; else, and where that is not seen, None.

    Traced tensors have no values, and a CUDA graph cannot wait for them while it is captured.
    """
    if is_traced(x) or is_capturing(x):
        return None
    bits, count = _pack(backend, x)
    return bits if int(count) >= 0 else None


def unpack(backend: str, bits: Tensor, edge: Tensor) -> Tensor:
    """The spikes `[T, B, C, ...]` of the words, with the shape, type and gradient of `edge`."""
    if not edge.requires_grad and not is_traced(bits):  # PyTorch's bookkeeping takes longer
        return _Unpack.forward(edge, bits, backend)
    return _Unpack.apply(edge, bits, backend)  # pyright: ignore[reportReturnType]


class _OfBits(torch.autograd.Function):
    """Numbers made of bits; their gradient is that of a tensor that stands for the bits."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor, None, None]:
        return grad_outputs[0], None, None


class _Unpack(_OfBits):
    """The numbers for the bits; the gradient is that of the edge."""

    @staticmethod
    def forward(edge: Tensor, bits: Tensor, backend: str) -> Tensor:
        T, C, traced = edge.shape[0], edge.shape[2], is_traced(bits)
        run = torch.ops.rmploss.unpack if traced else _unpack
        found = layout.sequence(run(backend, bits, C, edge.dtype).view(T, -1, C), edge)
        return found.clone() if traced else layout.whole(found)


def pool(backend: str, bits: Tensor, place: Tensor) -> Tensor:
    """The means of the words over 2x2 squares, with the shape, type and gradient of `place`.

    place: `[T, B, C, H / 2, W / 2]`.
    """
    if not place.requires_grad:
        return _Pool.forward(place, bits, backend)
    return _Pool.apply(place, bits, backend)  # pyright: ignore[reportReturnType]


class _Pool(_OfBits):
    """The means for the bits; the gradient is that of the place."""

    @staticmethod
    def forward(place: Tensor, bits: Tensor, backend: str) -> Tensor:
        T, _, C, _, w = place.shape
        rows = KERNELS[backend].pool_rows(bits, C, w, place.dtype)
        return layout.whole(layout.sequence(rows.view(T, -1, C), place))


def _pack(backend: str, x: Tensor) -> tuple[Tensor, Tensor]:
    if not x.is_floating_point() or x.ndim < 3 or not x.numel():
        raise UserError(f"x is {list(x.shape)}, {x.dtype}; bits are of sequences [T, B, C, ...]")
    return KERNELS[backend].pack_rows(layout.rows(x, x.dtype).view(-1, x.shape[2]))


def _unpack(backend: str, bits: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    fits = bits.dtype == torch.int64 and bits.ndim == 2 and channels >= 1
    if not fits or bits.shape[1] != words(channels) or not dtype.is_floating_point:
        shape = f"{list(bits.shape)}, {bits.dtype}"
        raise UserError(f"the bits are {shape}; {channels} channels need [rows, {words(channels)}]")
    return KERNELS[backend].unpack_rows(bits, channels, dtype)


LIBRARY = Library("rmploss", "FRAGMENT")
for _schema, _function in (
    ("pack(str backend, Tensor x) -> (Tensor bits, Tensor count)", _pack),
    ("unpack(str backend, Tensor bits, SymInt channels, ScalarType dtype) -> Tensor", _unpack),
):
    LIBRARY.define(_schema, tags=(torch.Tag.pt2_compliant_tag,))
    LIBRARY.impl(_schema.partition("(")[0], _function, "CompositeExplicitAutograd")


@register_fake("rmploss::pack", lib=LIBRARY)
def _(backend: str, x: Tensor) -> tuple[Tensor, Tensor]:
    C = x.shape[2]
    bits = x.new_empty(x.numel() // C, words(C), dtype=torch.int64)
    return bits, x.new_empty((), dtype=torch.int64)


@register_fake("rmploss::unpack", lib=LIBRARY)
def _(backend: str, bits: Tensor, channels: int, dtype: torch.dtype) -> Tensor:
    return bits.new_empty(bits.shape[0], channels, dtype=dtype)
