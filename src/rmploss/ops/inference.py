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
from rmploss.ops.spike_conv2d.native import EVENT_OUTPUTS, reads_bits, record
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


class _Ready(NamedTuple):
    """A call of the kernel, ready but for its input and output.

    out: the shape of the spikes `[T, B, C', H', W']`.
    spatial: the shape of the convolution, and the same as kernels read it.
    neurons: the fields of the record of the neurons, without a shortcut.
    weights: the addresses of blocks and bias.
    held: the tensors behind the addresses.
    """

    out: tuple[int, ...]
    spatial: tuple[Spatial, object]
    neurons: dict[str, Any]
    weights: dict[str, int]
    held: tuple[Tensor | None, ...]


class Layer:
    """What is kept of a layer between inferences; a copy, and what is unpickled, keeps nothing.

    The weights are cut into blocks, which takes as much memory as the weights (more where channels
    are no multiple of 64), and at one image longer than the convolution.
    """

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Free everything."""
        self._weight: _Seen | None = None
        self._set = ""
        self._blocks: Tensor | None = None
        self._all: _Seen | None = None
        self._key: tuple[Any, ...] = ()
        self._ready: _Ready | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Layer, ()

    def ready(
        self, x: Spikes, conv: Convolution, norm: Affine | None, neuron: NeuronOptions
    ) -> _Ready | None:
        """The call for inputs of the shape of x; None where the kernel cannot run."""
        tensors = [conv.weight] if conv.bias is None else [conv.weight, conv.bias]
        numbers = ()
        if norm is not None:
            tensors += norm.made_from
            numbers = norm.numbers
        places = conv.stride, conv.padding, native.instruction_set(), torch.get_num_threads()
        key = x.shape, neuron, numbers, places
        same = self._all is not None and self._key == key and self._all.is_now(tensors)
        if not same or self._ready is None:
            self._ready = None
            if any(_is_unread(tensor) for tensor in tensors):
                return None
            self._ready = self._prepare(x, conv, norm, neuron)
            self._all, self._key = _Seen(tensors), key
        return self._ready

    def _prepare(
        self, x: Spikes, conv: Convolution, norm: Affine | None, neuron: NeuronOptions
    ) -> _Ready | None:
        options = NeuronNumbers.of(neuron)
        if isinstance(options, str) or x.shape[2] != conv.weight.shape[1]:
            return None
        T, B = x.shape[:2]
        shape = Spatial.of((T * B, *x.shape[2:]), conv.weight, conv.stride, conv.padding)
        if min(shape.out) < 1 or shape.out_channels < EVENT_OUTPUTS:
            return None
        C, here = shape.out_channels, {"dtype": torch.float32, "device": "cpu"}
        gain, shift = (None, None) if norm is None else (t.contiguous() for t in norm.make())
        decay, threshold = (
            torch.full((C,), float(neuron[name]), **here) for name in ("decay", "v_threshold")
        )
        spatial = record(shape)
        blocks, bias = self._blocked(conv.weight, spatial), conv.bias
        bias = None if bias is None else bias.detach().contiguous()
        neurons = {
            "steps": T,
            "rows": B * shape.out[0] * shape.out[1],
            "channels": C,
            "gain": address(gain, torch.float32),
            "bias": address(shift, torch.float32),
            "decay": address(decay, torch.float32),
            "threshold": address(threshold, torch.float32),
            "reset_to": options.reset_to,
            "reset": RESETS[options.reset],
        }
        weights = {"blocks": address(blocks, torch.float32), "bias": address(bias, torch.float32)}
        held = blocks, bias, gain, shift, decay, threshold
        return _Ready((T, B, C, *shape.out), (shape, spatial), neurons, weights, held)

    def _blocked(self, weight: Tensor, shape: object) -> Tensor:
        """The weights as the kernel of the instruction set in use reads them."""
        chosen, seen = native.instruction_set(), self._weight
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
    if not native.INFERS or torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return None
    if x.ndim != 5 or x.dtype != torch.float32 or is_traced(x.edge):
        return None
    if choose("auto", x.device, x.dtype)[0] != "cpu":
        return None
    ready = layer.ready(x, conv, norm, neuron)
    known = None if ready is None else x.bits
    if ready is None or known is None or not reads_bits(ready.spatial[0], known[1]):
        return None
    shortcut = _shortcut(residual, ready.out)
    if shortcut is None:
        return None
    field, _held = shortcut
    here: Any = {"dtype": torch.int64, "device": "cpu"}  # whatever the default device
    rows = ready.neurons["steps"] * ready.neurons["rows"]
    words = torch.empty(rows, layout.words(ready.out[2]), **here)
    count = torch.empty((), **here)
    native.module.event_lif(
        shape=ready.spatial[1],
        layer=native.module.layer(**ready.neurons, **field),
        bits=address(known[0], torch.int64),
        **ready.weights,
        out=native.module.forward(bits=words.data_ptr(), count=count.data_ptr()),
    )
    edge = layout.whole(x.edge.new_full((), float("nan")).expand(ready.out))
    return Spikes("cpu", edge, (words, count), is_dense=False)


def _is_unread(x: Tensor) -> bool:
    """True for a tensor that the kernel cannot read, or whose changes nobody counts."""
    return x.dtype != torch.float32 or not x.is_cpu or x.is_inference() or is_traced(x)


def _shortcut(
    residual: Tensor | Spikes | None, shape: Sequence[int]
) -> tuple[dict[str, int], Tensor | None] | None:
    """The field of a shortcut, its words or its numbers, and what is there; None: not readable."""
    if residual is None:
        return {}, None
    if tuple(residual.shape) != shape or residual.dtype != torch.float32:
        return None
    numbers, words = residual.as_bits() if isinstance(residual, Spikes) else (residual, None)
    if words is not None:
        return {"residual_bits": address(words, torch.int64)}, words
    if not numbers.is_cpu:
        return None
    rows = layout.rows(numbers, torch.float32)
    return {"residual": address(rows, torch.float32)}, rows
