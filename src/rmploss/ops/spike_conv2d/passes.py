"""Forward and backward of a convolution, by the kernels of the backend that its inputs name."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.ops.layout import words
from rmploss.ops.spike_conv2d import native, triton
from rmploss.ops.spike_conv2d.inputs import ConvInputs, Spatial
from rmploss.ops.spikes.op import pack


class Kernels(Protocol):
    """The functions of a backend's file: `native.py` and `triton.py` beside this one."""

    def convolve(
        self,
        shape: Spatial,
        x: Tensor | None,
        bits: Tensor | None,
        count: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
    ) -> Tensor:
        """y `[N, C', H', W']` of that type; x or its bits are given, or both."""
        ...

    def convolve_backward(
        self,
        shape: Spatial,
        g_y: Tensor,
        x: Tensor | None,
        bits: Tensor | None,
        count: Tensor,
        weight: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and the weight, those that are needed; x or its bits are given.

        They have the types of g_y and of the weight.
        """
        ...

    def reads_bits(self, shape: Spatial, count: Tensor) -> bool:
        """True if forward reads the bits of x, and no number of it."""
        ...


KERNELS: dict[str, Kernels] = {"cpu": native, "triton": triton}  # pyright: ignore[reportAssignmentType]
"""Backend -> its kernels."""


class ConvOutputs(NamedTuple):
    """y `[N, C', H', W']`; what looking found: the bits of x, or empty, and their number or -1."""

    y: Tensor
    bits: Tensor
    spike_count: Tensor


def forward(*arguments: Any) -> ConvOutputs:
    """The outputs of the `ConvInputs` whose fields are given."""
    inputs = ConvInputs(*arguments)
    problem = inputs.problem()
    if problem:
        raise UserError(problem)
    x, bits, count = inputs.x, inputs.bits, inputs.spike_count
    found = x.new_empty(0, dtype=torch.int64)
    if bits is None and inputs.look:
        bits, count = found, looked = pack(inputs.backend, x.unsqueeze(0))
    elif bits is None:
        count = looked = torch.full((), -1, dtype=torch.int64, device=x.device)
    else:
        looked = x.new_empty((), dtype=torch.int64)
    assert count is not None
    y = KERNELS[inputs.backend].convolve(
        inputs.shape,
        x if inputs.is_dense else None,
        bits,
        count,
        inputs.weight,
        inputs.bias,
        x.dtype,
    )
    return ConvOutputs(y, found, looked)


def backward(
    backend: str,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
    size: Sequence[int],
    stride: int,
    padding: int,
    needs: Sequence[bool],
) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of x `size` and of the weight, those that are needed."""
    shape = Spatial.of(size, weight, stride, padding)
    _check_gradients(shape, g_y, x, bits, count, weight)
    need_x, need_weight = needs
    g_x, g_weight = KERNELS[backend].convolve_backward(
        shape, g_y, x, bits, count, weight, (need_x, need_weight)
    )
    if g_weight is not None and g_weight.stride() != weight.stride():
        g_weight = torch.empty_like(weight).copy_(g_weight)
    return g_x, g_weight


def _check_gradients(
    shape: Spatial,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    count: Tensor,
    weight: Tensor,
) -> None:
    """Raise `UserError` for tensors of backward that do not fit."""
    if shape.stride < 1 or shape.padding < 0 or min(shape[:7]) < 1:
        raise UserError(f"no convolution has the shape {shape}")
    N, C, H, W = shape[:4]
    for name, tensor, wanted in (
        ("gradient", g_y, (N, weight.shape[0], *shape.out)),
        ("input", x, (N, C, H, W)),
        ("bits", bits, (N * H * W, words(C))),
        ("number of bits", count, ()),
        ("weight", weight, (weight.shape[0], C, *weight.shape[2:])),
    ):
        if tensor is not None and tuple(tensor.shape) != wanted:
            raise UserError(f"{name}: {list(tensor.shape)} is not {list(wanted)}")
    if weight.dtype not in (g_y.dtype, torch.float32):
        raise UserError(f"a weight of {weight.dtype} beside a gradient of {g_y.dtype}")
    if x is None and bits is None:
        raise UserError("neither x nor its bits are given")
