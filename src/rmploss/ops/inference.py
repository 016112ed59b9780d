"""A layer for inference, of the backend `cpu`: convolution of spikes, norm, shortcut and neurons.

    spikes = LIF(gain (W * x + b) + shift + residual)        Eqs. 1-3, 6-7 with running statistics

One pass over the spikes of all steps (native/event_lif.h). Sums have the order of `spike_conv2d`
and `lif_layer`, so the spikes are theirs, bit for bit. What the kernel reads of a layer (`Layer`)
is made once and kept until a tensor that it was made from has changed.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from rmploss.ops import layout, native
from rmploss.ops.backends import choose
from rmploss.ops.lif.inputs import NeuronNumbers, NeuronOptions
from rmploss.ops.lif.native import RESETS
from rmploss.ops.native import address
from rmploss.ops.spike_conv2d.inputs import Spatial
from rmploss.ops.spike_conv2d.native import reads_bits, record
from rmploss.ops.spikes.value import Spikes
from rmploss.ops.tracing import is_traced


class Convolution(NamedTuple):
    """The convolution of a layer.

    weight: `[C', C, K, K]` float32.
    bias: `[C']` or None.
    stride, padding: of both dimensions.
    """

    weight: Tensor
    bias: Tensor | None
    stride: int
    padding: int


class Affine(NamedTuple):
    """The norm of a layer with its running statistics.

    made_from, numbers: all tensors and numbers that `make` reads.
    make: gain and shift, `[C']` float32.
    """

    made_from: tuple[Tensor, ...]
    numbers: tuple[float, ...]
    make: Callable[[], tuple[Tensor, Tensor]]


class _Seen:
    """Tensors as they were: the same objects, memory and values.

    (A change that PyTorch does not count, through `.data` or NumPy, is not noticed.)
    """

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._tensors = tuple(tensors)
        self._versions = [x._version for x in tensors]
        self._memory = [x.detach() for x in tensors]  # as long as it is held, nobody else gets it

    def is_now(self, tensors: Sequence[Tensor]) -> bool:
        """True if these are the same tensors, and unchanged."""
        if len(tensors) != len(self._tensors):
            return False
        seen = zip(tensors, self._tensors, self._versions, self._memory, strict=True)
        return all(
            x is old and x._version == version and x.data_ptr() == memory.data_ptr()
            for x, old, version, memory in seen
        )


class Layer:
    """What is kept of a layer between inferences; a copy, and what is unpickled, keeps nothing.

    The weights are cut into blocks, which takes as much memory as the weights (more where channels
    are no multiple of 64), and at one image longer than the convolution. Gain and shift are those
    of the norm.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Free everything."""
        self._weight: _Seen | None = None
        self._set = ""
        self._blocks: Tensor | None = None
        self._norm: _Seen | None = None
        self._numbers: tuple[float, ...] = ()
        self._affine: tuple[Tensor, Tensor] | None = None
        self._neuron: NeuronOptions | None = None
        self._constants: tuple[Tensor, Tensor] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer, ()

    def blocks(self, weight: Tensor, shape: object) -> Tensor:
        """The weights as the kernel of the instruction set in use reads them."""
        chosen = native.instruction_set()
        seen = self._weight
        if self._blocks is None or seen is None or self._set != chosen or not seen.is_now([weight]):
            self._blocks = None  # free before there are two
            blocks: Tensor = native.module.empty((native.module.blocks_size(shape),), (1,), False)
            given = weight.detach().contiguous()
            native.module.make_blocks(
                shape=shape,
                weight=address(given, torch.float32),
                blocks=address(blocks, torch.float32),
            )
            self._weight, self._set, self._blocks = _Seen([weight]), chosen, blocks
        return self._blocks

    def affine(self, norm: Affine | None) -> tuple[Tensor | None, Tensor | None]:
        """Gain and shift; None, None without a norm."""
        if norm is None:
            return None, None
        seen = self._norm
        same = seen is not None and self._numbers == norm.numbers and seen.is_now(norm.made_from)
        if self._affine is None or not same:
            gain, shift = norm.make()
            self._affine = gain.contiguous(), shift.contiguous()
            self._norm, self._numbers = _Seen(norm.made_from), norm.numbers
        return self._affine

    def constants(self, neuron: NeuronOptions, channels: int) -> tuple[Tensor, Tensor]:
        """Decay and threshold, numbers, as `[C']`."""
        if self._constants is None or self._neuron != neuron:
            decay, threshold = float(neuron["decay"]), float(neuron["v_threshold"])
            full = (torch.full((channels,), value, device="cpu") for value in (decay, threshold))
            self._neuron, self._constants = neuron, (next(full), next(full))
        return self._constants


def conv_lif(
    layer: Layer,
    x: Spikes,
    conv: Convolution,
    norm: Affine | None,
    neuron: NeuronOptions,
    residual: Tensor | Spikes | None,
) -> Spikes | None:
    """The spikes `[T, B, C', H', W']` of a layer without gradient; None: its operations run singly.

    layer: what is kept of it.
    x: `[T, B, C, H, W]`.
    neuron: with numbers for decay and threshold, and without moments.
    residual: `[T, B, C', H', W']`, added to the norm's output.
    """
    known = _bits(x, conv, norm)
    numbers = NeuronNumbers.of(neuron)
    if known is None or isinstance(numbers, str):
        return None
    T, B = x.shape[:2]
    shape = Spatial.of((T * B, *x.shape[2:]), conv.weight, conv.stride, conv.padding)
    if min(shape.out) < 1 or not reads_bits(shape, known[1]):
        return None
    out = (T, B, shape.out_channels, *shape.out)
    shortcut = _shortcut(residual, out)
    if shortcut is None:
        return None
    spatial, rows = record(shape), B * shape.out[0] * shape.out[1]
    gain, shift = layer.affine(norm)
    decay, threshold = layer.constants(neuron, shape.out_channels)
    neurons = native.module.layer(
        steps=T,
        rows=rows,
        channels=shape.out_channels,
        gain=address(gain, torch.float32),
        bias=address(shift, torch.float32),
        residual=address(shortcut[0], torch.float32),
        residual_bits=address(shortcut[1], torch.int64),
        decay=address(decay, torch.float32),
        threshold=address(threshold, torch.float32),
        reset_to=numbers.reset_to,
        reset=RESETS[numbers.reset],
    )
    here: Any = {"dtype": torch.int64, "device": "cpu"}  # whatever the default device
    words = torch.empty(T * rows, layout.words(shape.out_channels), **here)
    count = torch.empty((), **here)
    native.module.event_lif(
        shape=spatial,
        layer=neurons,
        bits=address(known[0], torch.int64),
        blocks=address(layer.blocks(conv.weight, spatial), torch.float32),
        bias=address(conv.bias, torch.float32),
        out=native.module.forward(
            bits=address(words, torch.int64), count=address(count, torch.int64)
        ),
    )
    edge = layout.whole(x.edge.new_full((), float("nan")).expand(out))
    return Spikes("cpu", edge, (words, count), is_dense=False)


def _bits(x: Spikes, conv: Convolution, norm: Affine | None) -> tuple[Tensor, Tensor] | None:
    """The bits of x if the kernel can read the layer: on the CPU, float32, nothing traced."""
    if (
        not native.INFERS
        or torch.is_grad_enabled()
        or torch.is_autocast_enabled("cpu")
        or is_traced(x.edge)
    ):
        return None
    if x.ndim != 5 or choose("auto", x.device, x.dtype)[0] != "cpu":
        return None
    tensors = [
        t for t in (conv.weight, conv.bias, *(norm.made_from if norm else ())) if t is not None
    ]
    if x.dtype != torch.float32 or any(_is_unread(tensor) for tensor in tensors):
        return None
    return x.bits if x.shape[2] == conv.weight.shape[1] else None


def _is_unread(x: Tensor) -> bool:
    """True for a tensor that the kernel cannot read, or whose changes nobody counts."""
    return x.dtype != torch.float32 or not x.is_cpu or x.is_inference() or is_traced(x)


def _shortcut(
    residual: Tensor | Spikes | None, shape: Sequence[int]
) -> tuple[Tensor | None, Tensor | None] | None:
    """The rows of a shortcut, or its words; None if the kernel cannot add it."""
    if residual is None:
        return None, None
    if tuple(residual.shape) != tuple(shape) or residual.dtype != torch.float32:
        return None
    numbers, words = residual.as_bits() if isinstance(residual, Spikes) else (residual, None)
    if words is not None:
        return None, words
    return (layout.rows(numbers, torch.float32), None) if numbers.is_cpu else None
