"""The `cpu` provider: native kernels (C++, SIMD, OpenMP), built when the package is installed.

The only file that hands addresses to native code: it answers for shapes, types, layouts and
lifetimes. Threads are PyTorch's (`torch.get_num_threads()`), the OpenMP runtime is the one that
PyTorch loaded. The kernels' results do not depend on the number of threads.
"""

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from rmploss.errors import UserError
from rmploss.ops import dense, layout
from rmploss.ops.kernels import BROKEN_PROMISE, Current, Spatial, wide, words
from rmploss.ops.rule import KINDS, RESETS, Rule
from rmploss.ops.tracing import is_traced

INTERFACE = 3
"""Of the native module, counted up in native/bindings.cpp with every change of an argument."""

try:
    _native: Any = import_module("rmploss.ops._native")
    if _native.INTERFACE != INTERFACE:
        raise ImportError(f"interface {_native.INTERFACE} instead of {INTERFACE}")
    # The numbers of `rule` -> the kernels' own.
    _SURROGATES = [_native.surrogates()[kind.__name__] for kind in KINDS]
    _RESETS = [_native.resets()[name] for name in RESETS]
    MISSING: str | None = None
except (ImportError, AttributeError, KeyError) as error:  # the last two: of another version
    _native, _SURROGATES, _RESETS = None, [], []
    MISSING = (
        f"the native kernels are not built ({error}): reinstall with GCC or Clang, and "
        "`pip install -v` to see what the compiler says"
    )

NATIVE_TYPES = (torch.float32, torch.float64)
"""The types that the kernels compute in."""
EVENT_DENSITY = 0.6
"""Above it a dense convolution is faster than the event-driven one (see benchmarks/)."""
EVENT_OUTPUTS = 24
"""Output channels from which on the event-driven kernels pay: a spike adds whole registers."""
WINOGRAD_CHANNELS = {2: 48, 4: 32}
WINOGRAD_TILES = 16
"""Channels (for 2x2 and 4x4 tiles) and tiles from which on Winograd pays."""


def instruction_sets() -> list[str]:
    """Those that the kernels were built for and this machine runs, the widest first."""
    return [] if _native is None else _native.instruction_sets()


def instruction_set() -> str:
    """The one in use; "none" without native kernels."""
    return "none" if _native is None else _native.instruction_set()


def use_instruction_set(name: str) -> None:
    """Use another one that this machine runs: for tests and measurements."""
    _native.choose(name)


def poison(on: bool) -> None:
    """Fill native memory with NaN when it is taken: for tests."""
    _native.poison(on)


def memory() -> tuple[int, int, int]:
    """Bytes of native memory in use, kept for the next step, and the most ever in use."""
    return (0, 0, 0) if _native is None else _native.memory()


def release_memory() -> int:
    """Hand kept memory back to the system; returns the bytes."""
    return 0 if _native is None else _native.release_kept()


def empty_like(like: Tensor, *shape: int, last: bool = False) -> Tensor:
    """An empty tensor of the type and device of `like`; large ones over memory that is kept.

    last: maps `[N, C, H, W]` whose memory is `[N, H, W, C]`.
    """
    if not _is_kept(like, shape):
        if not last:
            return like.new_empty(shape)
        options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        return torch.empty(shape, memory_format=torch.channels_last, **options)
    order = (0, 2, 3, 1) if last else range(len(shape))
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim], step = step, step * shape[dim]
    return _native.empty(shape, strides, like.dtype == torch.float64)


def _is_kept(like: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether the native allocator serves it: small blocks the system's reuses itself, cheaper."""
    if MISSING or not like.is_cpu or like.dtype not in NATIVE_TYPES or is_traced(like):
        return False
    return math.prod(shape) * like.element_size() >= _native.SMALL


class NativeKernels:
    """`kernels.Kernels` by the native module, whose neurons know float32 and float64 alone."""

    reads_half = False
    looks_free = True

    def lif_forward(self, current: Current, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
        """One pass over y: norm, shortcut, Eqs. 1-3 and the moments."""
        T, R, C = current.rows
        y = current.y
        spikes, last = empty_like(y, T, R, C), empty_like(y, R, C)
        moments = y.new_empty(4, C) if rule.moments else y.new_empty(0)
        outputs = (_address(x, y.dtype) for x in (spikes, moments, last))
        _native.lif_forward(_is_double(y), _arguments(current, rule), *outputs)
        return spikes, moments, last

    def lif_backward(
        self,
        current: Current,
        rule: Rule,
        g_spikes: Tensor | None,
        g_moments: Tensor | None,
        g_last: Tensor | None,
        constants: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """One pass: the membrane forward once more in registers, then the reverse loop."""
        y = current.y
        g_current, sums = empty_like(y, *y.shape), y.new_empty(4, y.shape[2])
        g_start = y.new_empty(0) if current.start is None else empty_like(y, *y.shape[1:])
        gradients = (g_spikes, g_moments, g_last, g_current, g_start, sums)
        places = [_address(g, y.dtype) for g in gradients]
        _native.lif_backward(_is_double(y), _arguments(current, rule), *places, constants)
        return g_current, g_start, sums

    def statistics(self, y: Tensor) -> Tensor:
        """Piecewise in the type of y, combined in float64: no cancellation for any mean."""
        C = y.shape[-1]
        out = torch.empty(3, C, dtype=torch.float64)
        _native.statistics(
            _is_double(y), _address(y, y.dtype), y.numel() // C, C, _address(out, out.dtype),
            _threads(),
        )  # fmt: skip
        return out

    def norm_gradient(
        self,
        g_x: Tensor,
        y: Tensor,
        statistics: Tensor,
        weight: Tensor,
        sums: Tensor,
        eps: float,
        out: Tensor,
    ) -> None:
        """One pass; its four numbers per channel are computed in float64."""
        C, dtype = y.shape[-1], g_x.dtype
        _native.norm_gradient(
            _is_double(g_x), _address(statistics, torch.float64), _address(weight, dtype),
            _address(sums, torch.float64), eps, _address(g_x, dtype), _address(y, dtype),
            y.numel() // C, C, _address(out, dtype), _threads(),
        )  # fmt: skip

    def pack(self, x: Tensor, binary: bool = False) -> tuple[Tensor, Tensor]:
        """One pass over x, which also tells whether x is spikes and how many."""
        R, C = x.shape
        single = x.to(torch.float32).contiguous()
        bits = torch.empty(R, words(C), dtype=torch.int64, device="cpu")
        places = _address(single, torch.float32), _address(bits, torch.int64)
        spikes = _native.pack(places[0], R, C, places[1], _threads())
        if x.dtype == torch.float64 and not torch.equal(single.double(), x):
            spikes = -1  # a number that only float32 takes for 0 or 1
        if binary and spikes < 0:
            raise UserError(BROKEN_PROMISE)
        return bits, torch.tensor(spikes, device="cpu")  # whatever the default device

    def unpack(self, bits: Tensor, channels: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The inverse of `pack`."""
        x: Tensor = _native.empty((bits.shape[0], channels), (channels, 1), False)
        _native.unpack(
            _address(bits, torch.int64), bits.shape[0], channels, _address(x, torch.float32),
            _threads(),
        )  # fmt: skip
        return x.to(dtype)

    def convolve(
        self,
        shape: Spatial,
        x: Tensor,
        bits: Tensor,
        spikes: Tensor,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """Event-driven where the input is spikes and sparse enough, else dense.

        Half precision, too, is computed in float32 and rounded at the end: from 32 channels on that
        is faster than a dense convolution in bfloat16, also with AVX512-BF16.
        """
        sparse = _is_sparse(shape, spikes)
        if not sparse and not _is_winograd(shape, tile=2):
            return dense.convolve(shape, x, weight, bias)
        weight = _wide(weight).contiguous()
        bias = None if bias is None else _wide(bias).contiguous()
        y = empty_like(weight, shape.images, shape.out_channels, *shape.out, last=True)
        arguments = (_shape(shape), _threads())
        if sparse:
            place = _address(bits, torch.int64)
            _native.event_forward(*arguments, place, *_weights(weight, bias), _map(y))
        else:
            wide_x = _wide(x).contiguous(memory_format=torch.channels_last)
            weights = _weights(weight, bias)
            _native.winograd(*arguments, _map(wide_x), *weights, False, 2, _map(y))
        return y.to(x.dtype)

    def convolve_backward(
        self,
        shape: Spatial,
        g_y: Tensor,
        x: Tensor | None,
        bits: Tensor | None,
        spikes: Tensor,
        weight: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The input's gradient by Winograd (3x3, stride 1), the weight's from the spikes."""
        need_x, need_weight = needs
        # F(2x2), which rounds less, on maps that hold no whole 4x4 tile.
        tile = 4 if min(shape.height, shape.width) >= 4 else 2
        native_x = need_x and _is_winograd(shape, tile)
        native_weight = need_weight and _is_sparse(shape, spikes)
        others = (need_x and not native_x, need_weight and not native_weight)
        g_x, g_weight = dense.gradients(self, shape, g_y, x, bits, weight, others)
        arguments = (_shape(shape), _threads())
        wide_g = _wide(g_y).contiguous(memory_format=torch.channels_last)
        if native_x:
            wide_x = empty_like(
                wide_g, shape.images, shape.channels, shape.height, shape.width, last=True
            )
            wide_weight = _wide(weight).contiguous()
            places = (_map(wide_g), *_weights(wide_weight, None))
            _native.winograd(*arguments, *places, True, tile, _map(wide_x))
            g_x = wide_x.to(g_y.dtype)
        if native_weight:
            if bits is None:  # nobody could look before x was kept
                assert x is not None
                bits, _ = self.pack(layout.map_rows(x))
            wide_weight = empty_like(wide_g, *weight.shape)
            places = (_address(bits, torch.int64), _map(wide_g))
            _native.event_weight_gradient(*arguments, *places, _address(wide_weight, torch.float32))
            g_weight = wide_weight.to(weight.dtype)
        return g_x, g_weight


def _is_sparse(shape: Spatial, spikes: Tensor) -> bool:
    """Whether the event-driven kernels run: exact for spikes, faster up to some density."""
    neurons = shape.images * shape.channels * shape.height * shape.width
    return shape.out_channels >= EVENT_OUTPUTS and 0 <= int(spikes) <= EVENT_DENSITY * neurons


def _is_winograd(shape: Spatial, tile: int) -> bool:
    """Whether the Winograd kernel computes this convolution."""
    kernel = (shape.kernel_height, shape.kernel_width, shape.stride, shape.padding)
    tiles = shape.images * -(-shape.height // tile) * -(-shape.width // tile)
    wide = min(shape.channels, shape.out_channels) >= WINOGRAD_CHANNELS[tile]
    return kernel == (3, 3, 1, 1) and wide and tiles >= WINOGRAD_TILES


def _arguments(current: Current, rule: Rule) -> tuple[Any, ...]:
    """The neurons, in the order of `neurons` in native/bindings.cpp."""
    y, residual = current.y, current.residual
    is_bits = residual is not None and residual.dtype == torch.int64
    place = _address(residual, torch.int64 if is_bits else y.dtype)
    return (
        *current.rows,
        current.is_static,
        _address(y, y.dtype),
        _address(current.statistics, torch.float64),
        current.eps,
        *(_address(x, y.dtype) for x in (current.gain, current.bias)),
        0 if is_bits else place,
        place if is_bits else 0,
        *(_address(x, y.dtype) for x in (current.start, current.decay, current.threshold)),
        rule.reset_to, _RESETS[rule.reset], rule.detach_reset, _SURROGATES[rule.surrogate],
        rule.slope, rule.damping,
        rule.moments, rule.of_input, rule.detach_target, rule.p,
        _threads(),
    )  # fmt: skip


def _wide(x: Any) -> Any:
    """A tensor, or None, in the type in which is computed."""
    return x if x is None or x.dtype in NATIVE_TYPES else x.to(wide(x.dtype))


def _address(x: Tensor | None, dtype: torch.dtype) -> int:
    """Where a dense array begins, 0 for none."""
    if x is None or not x.numel():
        return 0
    if not (x.is_cpu and x.dtype == dtype and x.is_contiguous()):
        raise _not_dense(x, dtype)
    return x.data_ptr()


def _map(x: Tensor) -> int:
    """Where float32 maps `[N, C, H, W]` begin, channels last."""
    dense = x.is_contiguous(memory_format=torch.channels_last)
    if not (x.is_cpu and x.dtype == torch.float32 and dense):
        raise _not_dense(x, torch.float32)
    return x.data_ptr()


def _not_dense(x: Tensor, dtype: torch.dtype) -> ValueError:
    wanted = f"a dense {dtype} tensor on the CPU"
    return ValueError(f"a native kernel needs {wanted}; not {x.dtype}, {x.device}, {x.stride()}")


def _shape(shape: Spatial) -> tuple[int, ...]:
    """In the order of the native `Convolution`."""
    return (
        shape.images, shape.height, shape.width, shape.channels, *shape.out, shape.out_channels,
        shape.kernel_height, shape.kernel_width, shape.stride, shape.padding,
    )  # fmt: skip


def _weights(weight: Tensor, bias: Tensor | None) -> tuple[int, int]:
    """Where a weight and its bias begin: both are dense, and alive as long as the caller's are."""
    return _address(weight, torch.float32), _address(bias, torch.float32)


def _is_double(x: Tensor) -> bool:
    assert x.dtype in (torch.float32, torch.float64)
    return x.dtype == torch.float64


def _threads() -> int:
    return torch.get_num_threads()
