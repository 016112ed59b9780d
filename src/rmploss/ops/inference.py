"""A layer for inference, of the backend `cpu`: convolution of spikes, norm, shortcut and neurons.

    spikes = LIF(gain (W * x + b) + shift + residual)        Eqs. 1-3, 6-7 with running statistics

One pass over the spikes of all steps (native/event_lif.h). Sums have the order of `spike_conv2d`
and `lif_layer`, so the spikes are theirs, bit for bit. What the kernel reads of a layer (`Kept`)
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

    settled: the first tensor's values are those of its version, which does not count a change
        through `.data` or NumPy; all others, and it too otherwise, are read.
    """

    def __init__(self, tensors: Sequence[Tensor], *, settled: bool) -> None:
        self._tensors = tuple(tensors)
        self._held = [x.detach() for x in tensors]  # memory that is held goes to no other tensor
        self._places = [_place(x) for x in tensors]
        self._settled = settled
        self._values = _fingerprint(tensors[settled:])

    def is_now(self, tensors: Sequence[Tensor], *, settled: bool) -> bool:
        """True if these are the same tensors, and unchanged."""
        if len(tensors) != len(self._tensors) or settled != self._settled:
            return False
        for x, old, place in zip(tensors, self._tensors, self._places, strict=True):
            if x is not old or _place(x) != place:
                return False
        return self._values == _fingerprint(tensors[settled:])


def _place(x: Tensor) -> tuple[Any, ...]:
    """Where the values of x are, and how often they were changed in place."""
    return x._version, x.data_ptr(), x.shape, x.stride(), x.dtype


def _fingerprint(tensors: Sequence[Tensor]) -> int:
    """A number that changes with the values of tensors."""
    given = [x if x.is_contiguous() else x.detach().contiguous() for x in tensors]
    addresses, sizes = [x.data_ptr() for x in given], [x.numel() for x in given]
    return native.module.fingerprint(addresses, sizes, torch.get_num_threads())


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


class _Blocks(NamedTuple):
    """The weights as the kernel of an instruction set reads them, and of what they were made."""

    instruction_set: str
    seen: _Seen
    blocks: Tensor

    def is_now(self, weight: Tensor, instruction_set: str, *, settled: bool) -> bool:
        """True if they are those of a weight."""
        same = self.instruction_set == instruction_set
        return same and self.seen.is_now([weight], settled=settled)


class _Call(NamedTuple):
    """A call, or None where the kernel cannot run, and for what it was made ready."""

    key: tuple[Any, ...]
    seen: _Seen
    ready: _Ready | None


class Kept:
    """What is kept of a layer between inferences; a copy, and what is unpickled, keeps nothing.

    The weights are cut into blocks, which takes as much memory as the weights (more where channels
    are no multiple of 64), and at one image longer than the convolution. Before they are read
    again, the weights are: PyTorch counts no change through `.data` or NumPy. That takes a quarter
    of an image's time.

    is_settled: True spares it: the weights change only where PyTorch counts it.

    Several threads may use it: each holds what it reads, and what it writes is complete.
    """

    def __init__(self) -> None:
        self.is_settled = False
        self.forget()

    def forget(self) -> None:
        """Free everything."""
        self._blocks: _Blocks | None = None
        self._call: _Call | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Kept, ()

    @property
    def is_empty(self) -> bool:
        """True if nothing is kept."""
        return self._blocks is None and self._call is None

    def ready(
        self, x: Spikes, conv: Convolution, norm: Affine | None, neuron: NeuronOptions
    ) -> _Ready | None:
        """The call for inputs of the shape of x; None where the kernel cannot run."""
        tensors = [conv.weight] if conv.bias is None else [conv.weight, conv.bias]
        numbers = ()
        if norm is not None:
            tensors += norm.made_from
            numbers = norm.numbers
        if not _has_numbers(neuron):
            return None
        places = conv.stride, conv.padding, native.instruction_set(), torch.get_num_threads()
        key = x.shape, neuron, numbers, places
        call, settled = self._call, self.is_settled
        if call is None or call.key != key or not call.seen.is_now(tensors, settled=settled):
            self._call = call = None
            if not _is_read(tensors):
                return None
            seen = _Seen(tensors, settled=settled)  # of a change from now on the next call knows
            self._call = call = _Call(key, seen, self._prepare(x, conv, norm, neuron))
        return call.ready

    def _prepare(
        self, x: Spikes, conv: Convolution, norm: Affine | None, neuron: NeuronOptions
    ) -> _Ready | None:
        options = NeuronNumbers.of(neuron)
        if isinstance(options, str) or not _fits(x, conv, norm):
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
        chosen, settled, known = native.instruction_set(), self.is_settled, self._blocks
        if known is not None and known.is_now(weight, chosen, settled=settled):
            return known.blocks
        self._blocks = known = None  # free before there are two
        seen = _Seen([weight], settled=settled)
        blocks: Tensor = native.module.empty((native.module.blocks_size(shape),), (1,), False)
        given = weight.detach().contiguous()
        native.module.make_blocks(
            shape=shape,
            weight=address(given, torch.float32),
            blocks=address(blocks, torch.float32),
        )
        self._blocks = _Blocks(chosen, seen, blocks)
        return blocks


def conv_lif(
    kept: Kept,
    x: Spikes,
    conv: Convolution,
    norm: Affine | None,
    neuron: NeuronOptions,
    residual: Tensor | Spikes | None,
) -> Spikes | None:
    """The spikes `[T, B, C', H', W']` of a layer without gradient; None: its operations run singly.

    kept: what is kept of the layer.
    x: `[T, B, C, H, W]`.
    neuron: with numbers for decay and threshold, and without moments.
    residual: `[T, B, C', H', W']`, added to the norm's output.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu"):
        return None
    if x.ndim != 5 or x.dtype != torch.float32 or is_traced(x.edge):
        return None
    if choose("auto", x.device, x.dtype)[0] != "cpu":
        return None
    ready = kept.ready(x, conv, norm, neuron)
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


def _is_read(tensors: Sequence[Tensor]) -> bool:
    """True for tensors that the kernel can read, and of which a version counts changes."""
    for x in tensors:
        if x.dtype != torch.float32 or not x.is_cpu or x.layout is not torch.strided:
            return False
        if x.is_inference() or x.is_neg() or is_traced(x):
            return False
    return True


def _has_numbers(neuron: NeuronOptions) -> bool:
    """True if decay, threshold and reset are numbers, and not learnt."""
    values = neuron["decay"], neuron["v_threshold"], neuron["v_reset"], neuron.get("reset_by")
    return all(value is None or isinstance(value, int | float) for value in values)


def _fits(x: Spikes, conv: Convolution, norm: Affine | None) -> bool:
    """True if the tensors of a layer have the shapes that its kernel reads."""
    weight, bias = conv.weight, conv.bias
    if weight.ndim != 4 or not weight.numel() or conv.stride < 1 or conv.padding < 0:
        return False
    if x.shape[2] != weight.shape[1] or 0 in x.shape:
        return False
    of_channels = [*(() if bias is None else (bias,)), *(() if norm is None else norm.made_from)]
    return all(t.shape == weight.shape[:1] for t in of_channels)


def _shortcut(
    residual: Tensor | Spikes | None, shape: Sequence[int]
) -> tuple[dict[str, int], Tensor | None] | None:
    """The field of a shortcut, its words or its numbers, and what is there; None: not readable."""
    if residual is None:
        return {}, None
    if tuple(residual.shape) != shape or residual.dtype != torch.float32:
        return None
    numbers, words = residual.as_bits() if isinstance(residual, Spikes) else (residual, None)
    if words is not None and words.is_cpu:
        return {"residual_bits": address(words, torch.int64)}, words
    if words is not None or not numbers.is_cpu:
        return None
    rows = layout.rows(numbers, torch.float32)
    return {"residual": address(rows, torch.float32)}, rows
