"""The operations as `torch.library` has them: schema, fake, autograd. Their kernels are elsewhere.

Arrays are channels-last rows: y `[T, R, C]` with R = B H W. Backward keeps the input of an
operation and no membrane: the reverse loop (README.md) computes it again from the input. Spikes
that are kept for backward are kept as bits, 1/32 of float32.

A provider is a set of `Kernels`; the operations know it by its name, so that one schema, one fake
and one backward serve all of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.library import custom_op

from rmploss.errors import UserError
from rmploss.ops.collectives import ranks
from rmploss.ops.rule import Rule


class Current(NamedTuple):
    """What the input current is made of: x(t) = (y(t) - mean) gain + bias + residual(t).

    y: `[T, R, C]`, or `[1, R, C]` for `steps` equal steps; mean, gain, bias: `[C]` or None;
    residual: `[T, R, C]`, or its bits `[T R, words]`, or None; start: the membrane before the first
    step `[R, C]` or None; decay, threshold: `[C]`.
    """

    y: Tensor
    mean: Tensor | None
    gain: Tensor | None
    bias: Tensor | None
    residual: Tensor | None
    start: Tensor | None
    decay: Tensor
    threshold: Tensor
    steps: int

    @property
    def is_static(self) -> bool:
        """Whether one step of y stands for all."""
        return self.y.shape[0] < self.steps

    def misfit(self) -> str | None:
        """What does not fit: a kernel would read what is not there."""
        T, R, C = self.rows
        if self.y.shape[0] not in (1, T) or not self.y.numel():
            return f"y has shape {list(self.y.shape)} for {T} steps"
        wanted = {"mean": (C,), "gain": (C,), "bias": (C,), "decay": (C,), "threshold": (C,)}
        wanted |= {"start": (R, C), "residual": (T, R, C)}
        for name, shape in wanted.items():
            x = getattr(self, name)
            if x is not None and (tuple(x.shape) != shape or x.dtype != self.y.dtype):
                return f"{name} is {list(x.shape)}, {x.dtype}; not {list(shape)}, {self.y.dtype}"
        return None

    @property
    def rows(self) -> tuple[int, int, int]:
        """T, R, C."""
        return self.steps, self.y.shape[1], self.y.shape[2]


class Spatial(NamedTuple):
    """The shape of a convolution: input `[N, C, H, W]`, weight `[C', C, K, K]`."""

    images: int
    channels: int
    height: int
    width: int
    out_channels: int
    kernel_height: int
    kernel_width: int
    stride: int
    padding: int

    @property
    def out(self) -> tuple[int, int]:
        """H', W'."""
        return (
            (self.height + 2 * self.padding - self.kernel_height) // self.stride + 1,
            (self.width + 2 * self.padding - self.kernel_width) // self.stride + 1,
        )

    @staticmethod
    def of(size: Sequence[int], weight: Tensor, stride: int, padding: int) -> "Spatial":
        """From the size of the input and the weight."""
        N, C, H, W = size
        out_channels, _, K_h, K_w = weight.shape
        return Spatial(N, C, H, W, out_channels, K_h, K_w, stride, padding)


class Kernels(Protocol):
    """What a provider implements. All tensors are dense and channels-last; float32 or float64."""

    def lif_forward(self, current: Current, rule: Rule) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes `[T, R, C]`, moments `[4, C]` (empty unless rule.moments), last u `[R, C]`."""
        ...

    def lif_backward(
        self,
        current: Current,
        rule: Rule,
        g_spikes: Tensor | None,
        g_moments: Tensor | None,
        g_last: Tensor | None,
        constants: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradient of x `[T, R, C]` (of a static y: summed, `[1, R, C]`) and of start, and sums.

        Without a start its gradient is empty. sums `[4, C]`: over all rows of g_x, g_x (y - mean),
        and the gradients of decay and threshold, which need not be right without `constants`.
        """
        ...

    def statistics(self, y: Tensor) -> Tensor:
        """Mean and biased variance per channel, float64 `[2, C]`."""
        ...

    def norm_gradient(self, g_x: Tensor, y: Tensor, coefficients: Tensor, out: Tensor) -> None:
        """out = gain g_x + shift + slope (y - mean); coefficients `[4, C]` in this order."""
        ...

    def pack(self, x: Tensor) -> tuple[Tensor, int]:
        """Bits `[R, words]` (int64) of x `[R, C]`, and their number; -1 if not all are 0 or 1."""
        ...

    def unpack(self, bits: Tensor, channels: int) -> Tensor:
        """The float32 0/1 rows `[R, C]` of the bits."""
        ...

    def convolve(
        self,
        shape: Spatial,
        x: Tensor,
        bits: Tensor,
        spikes: int,
        weight: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        """y `[N, C', H', W']`; spikes: the number of bits, -1: x is no spikes."""
        ...

    def convolve_backward(
        self,
        shape: Spatial,
        g_y: Tensor,
        x: Tensor | None,
        bits: Tensor,
        spikes: int,
        weight: Tensor,
        needs: tuple[bool, bool],
    ) -> tuple[Tensor | None, Tensor | None]:
        """The gradients of x and the weight, those that are needed; x: None if bits are kept."""
        ...


KERNELS: dict[str, Kernels] = {}
"""Provider -> its kernels; filled by `providers.py`."""
CONSTANTS = slice(6, 8)
"""Where decay and threshold stand among the arguments of `lif` and `norm_lif`."""


def words(channels: int) -> int:
    """Words of 64 bits in a row of spikes."""
    return (channels + 63) // 64


# LIF ---------------------------------------------------------------------------------------------


@custom_op("rmploss::lif", mutates_args=())
def lif_op(
    provider: str,
    y: Tensor,
    gain: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    start: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    steps: int,
    numbers: Sequence[float],
    flags: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Spikes, moments and the last membrane; numbers and flags are a `Rule`'s."""
    current = Current(y, None, gain, bias, residual, start, decay, threshold, steps)
    _require(current.misfit())
    return KERNELS[provider].lif_forward(current, Rule.read(numbers, flags))


@lif_op.register_fake
def _(
    provider: str, y: Tensor, gain: Any, bias: Any, residual: Any, start: Any, decay: Any,
    threshold: Any, steps: int, numbers: Any, flags: Any,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return _fake_spikes(y, steps, numbers, flags)


@custom_op("rmploss::lif_backward", mutates_args=())
def lif_backward_op(
    provider: str,
    y: Tensor,
    gain: Tensor | None,
    bias: Tensor | None,
    residual: Tensor | None,
    start: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    steps: int,
    numbers: Sequence[float],
    flags: Sequence[int],
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x and of the start, and the sums of `Kernels.lif_backward`."""
    kernels = KERNELS[provider]
    current = Current(y, None, gain, bias, residual, start, decay, threshold, steps)
    rule = Rule.read(numbers, flags)
    return kernels.lif_backward(current, rule, g_spikes, g_moments, g_last, constants)


@lif_backward_op.register_fake
def _(
    provider: str, y: Tensor, gain: Any, bias: Any, residual: Any, start: Any, decay: Any,
    threshold: Any, steps: int, numbers: Any, flags: Any, g_spikes: Any, g_moments: Any,
    g_last: Any, constants: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    g_start = y.new_empty(0 if start is None else y.shape[1:])
    return torch.empty_like(y), g_start, y.new_empty(4, y.shape[2])


def _lif_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    provider, y, gain, bias, residual, start, decay, threshold, *plain = inputs
    ctx.provider, ctx.plain = provider, plain
    ctx.set_materialize_grads(False)
    kept = _smallest(provider, residual)
    ctx.save_for_backward(y, gain, bias, kept, start, decay, threshold)


def _lif_grad(ctx: Any, g_spikes: Any, g_moments: Any, g_last: Any) -> tuple[Any, ...]:
    y, gain, bias, residual, start, decay, threshold = ctx.saved_tensors
    moments = _rows(g_moments) if Rule.read(*ctx.plain[-2:]).moments else None
    g_x, g_start, sums = torch.ops.rmploss.lif_backward(
        ctx.provider, y, gain, bias, residual, start, decay, threshold, *ctx.plain,
        _rows(g_spikes), moments, _rows(g_last), any(ctx.needs_input_grad[CONSTANTS]),
    )  # fmt: skip
    g_y = g_x if gain is None else g_x * gain
    g_gain = sums[1] if gain is not None else None
    g_bias = sums[0] if bias is not None else None
    return (
        None, g_y, g_gain, g_bias, g_x if residual is not None else None,
        g_start if start is not None else None, sums[2], sums[3], None, None, None,
    )  # fmt: skip


lif_op.register_autograd(_lif_grad, setup_context=_lif_setup)


# tdBN + LIF --------------------------------------------------------------------------------------


@custom_op("rmploss::norm_lif", mutates_args=())
def norm_lif_op(
    provider: str,
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    start: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    steps: int,
    eps: float,
    sync: bool,
    numbers: Sequence[float],
    flags: Sequence[int],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Spikes, moments, the last membrane, and the statistics of y."""
    kernels = KERNELS[provider]
    _require(Current(y, weight, weight, bias, residual, start, decay, threshold, steps).misfit())
    statistics = kernels.statistics(y)
    if ranks(sync) > 1:
        statistics = _over_ranks(statistics, y.numel() / y.shape[2])
    current = _normalized(
        y, statistics, weight, bias, eps, residual, start, decay, threshold, steps
    )
    return (*kernels.lif_forward(current, Rule.read(numbers, flags)), statistics)


@norm_lif_op.register_fake
def _(
    provider: str, y: Tensor, weight: Any, bias: Any, residual: Any, start: Any, decay: Any,
    threshold: Any, steps: int, eps: float, sync: bool, numbers: Any, flags: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    return (
        *_fake_spikes(y, steps, numbers, flags),
        y.new_empty(2, y.shape[2], dtype=torch.float64),
    )


@custom_op("rmploss::norm_lif_backward", mutates_args=())
def norm_lif_backward_op(
    provider: str,
    y: Tensor,
    statistics: Tensor,
    weight: Tensor,
    bias: Tensor,
    residual: Tensor | None,
    start: Tensor | None,
    decay: Tensor,
    threshold: Tensor,
    steps: int,
    eps: float,
    sync: bool,
    numbers: Sequence[float],
    flags: Sequence[int],
    g_spikes: Tensor | None,
    g_moments: Tensor | None,
    g_last: Tensor | None,
    constants: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The gradients of y, of x (empty without a residual), of the start, and `[4, C]` of the rest.

    With S_1 = sum g_x and S_2 = sum g_x (y - mean) over all n values of a channel and all ranks:
    g_y = gain (g_x - S_1 / n - (y - mean) S_2 / (n (var + eps))); backward of Eqs. 6-7.
    """
    kernels = KERNELS[provider]
    current = _normalized(
        y, statistics, weight, bias, eps, residual, start, decay, threshold, steps
    )
    g_x, g_start, sums = kernels.lif_backward(
        current, Rule.read(numbers, flags), g_spikes, g_moments, g_last, constants
    )
    own = sums.double()
    count = torch.full(
        (1, y.shape[2]), y.numel() / y.shape[2], dtype=torch.float64, device=y.device
    )
    shared = torch.cat([own[:2], count])
    if ranks(sync) > 1:
        dist.all_reduce(shared)
    mean, var = statistics
    inverse = (var + eps).rsqrt()
    gain = weight.double() * inverse
    s_1, s_2, n = shared
    rows = (gain, -gain * s_1 / n, -gain * inverse.square() * s_2 / n, mean)
    out = g_x if residual is None else torch.empty_like(g_x)
    kernels.norm_gradient(g_x, y, torch.stack(rows).to(y.dtype), out)
    own[1] *= inverse
    kept = g_x if residual is not None else y.new_empty(0)
    return out, kept, g_start, own.to(y.dtype)


@norm_lif_backward_op.register_fake
def _(
    provider: str, y: Tensor, statistics: Any, weight: Any, bias: Any, residual: Any, start: Any,
    decay: Any, threshold: Any, steps: int, eps: float, sync: bool, numbers: Any, flags: Any,
    g_spikes: Any, g_moments: Any, g_last: Any, constants: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    kept = torch.empty_like(y) if residual is not None else y.new_empty(0)
    g_start = y.new_empty(0 if start is None else y.shape[1:])
    return torch.empty_like(y), kept, g_start, y.new_empty(4, y.shape[2])


def _norm_lif_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    provider, y, weight, bias, residual, start, decay, threshold, *plain = inputs
    ctx.provider, ctx.plain = provider, plain
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[3])
    kept = _smallest(provider, residual)
    ctx.save_for_backward(y, output[3], weight, bias, kept, start, decay, threshold)


def _norm_lif_grad(
    ctx: Any, g_spikes: Any, g_moments: Any, g_last: Any, g_statistics: Any
) -> tuple[Any, ...]:
    y, statistics, weight, bias, residual, start, decay, threshold = ctx.saved_tensors
    moments = _rows(g_moments) if Rule.read(*ctx.plain[-2:]).moments else None
    g_y, g_x, g_start, sums = torch.ops.rmploss.norm_lif_backward(
        ctx.provider, y, statistics, weight, bias, residual, start, decay, threshold, *ctx.plain,
        _rows(g_spikes), moments, _rows(g_last), any(ctx.needs_input_grad[CONSTANTS]),
    )  # fmt: skip
    return (
        None, g_y, sums[1], sums[0], g_x if residual is not None else None,
        g_start if start is not None else None, sums[2], sums[3], None, None, None, None, None,
    )  # fmt: skip


norm_lif_op.register_autograd(_norm_lif_grad, setup_context=_norm_lif_setup)


# Convolution -------------------------------------------------------------------------------------


@custom_op("rmploss::spike_conv2d", mutates_args=())
def spike_conv2d_op(
    provider: str, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int
) -> tuple[Tensor, Tensor, Tensor]:
    """y, the bits of x and their number; -1 if x is not all 0 and 1."""
    _require(misfit(x, weight, bias, stride, padding))
    kernels, shape = KERNELS[provider], Spatial.of(x.shape, weight, stride, padding)
    bits, spikes = kernels.pack(x.movedim(1, -1).reshape(-1, x.shape[1]))
    y = kernels.convolve(shape, x, bits, spikes, weight, bias)
    return y, bits, torch.tensor(spikes)


@spike_conv2d_op.register_fake
def _(
    provider: str, x: Tensor, weight: Tensor, bias: Any, stride: int, padding: int
) -> tuple[Tensor, Tensor, Tensor]:
    shape = Spatial.of(x.shape, weight, stride, padding)
    size = (shape.images, shape.out_channels, *shape.out)
    y = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    rows = shape.images * shape.height * shape.width
    bits = x.new_empty(rows, words(shape.channels), dtype=torch.int64)
    return y, bits, torch.empty((), dtype=torch.int64)


@custom_op("rmploss::spike_conv2d_backward", mutates_args=())
def spike_conv2d_backward_op(
    provider: str,
    g_y: Tensor,
    x: Tensor | None,
    bits: Tensor | None,
    spikes: int,
    weight: Tensor,
    size: Sequence[int],
    stride: int,
    padding: int,
    needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:
    """The gradients of x `size` and of the weight; empty if not needed."""
    kernels = KERNELS[provider]
    shape = Spatial.of(size, weight, stride, padding)
    if bits is None:
        assert x is not None
        bits, spikes = kernels.pack(x.movedim(1, -1).reshape(-1, x.shape[1]))
    g_x, g_weight = kernels.convolve_backward(
        shape, g_y, x, bits, spikes, weight, (needs[0], needs[1])
    )
    nothing = g_y.new_empty(0)
    if g_weight is not None and g_weight.stride() != weight.stride():
        g_weight = torch.empty_like(weight).copy_(g_weight)
    return nothing if g_x is None else g_x, nothing.clone() if g_weight is None else g_weight


@spike_conv2d_backward_op.register_fake
def _(
    provider: str, g_y: Tensor, x: Any, bits: Any, spikes: int, weight: Tensor,
    size: Sequence[int], stride: int, padding: int, needs: Sequence[bool],
) -> tuple[Tensor, Tensor]:  # fmt: skip
    g_x = g_y.new_empty(0)
    if needs[0]:
        options = {"dtype": g_y.dtype, "device": g_y.device}
        g_x = torch.empty(list(size), **options, memory_format=torch.channels_last)
    return g_x, torch.empty_like(weight) if needs[1] else g_y.new_empty(0)


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    provider, x, weight, _, stride, padding = inputs
    _, bits, count = output
    ctx.mark_non_differentiable(bits, count)
    ctx.set_materialize_grads(False)
    ctx.spikes = -1 if _is_traced(x) else int(count)
    ctx.provider, ctx.size, ctx.stride, ctx.padding = provider, list(x.shape), stride, padding
    ctx.save_for_backward(*((None, bits) if ctx.spikes >= 0 else (x, None)), weight)


def _conv_grad(ctx: Any, g_y: Tensor, g_bits: Any, g_count: Any) -> tuple[Any, ...]:
    x, bits, weight = ctx.saved_tensors
    _, need_x, need_weight, need_bias, *_ = ctx.needs_input_grad
    g_x, g_weight = torch.ops.rmploss.spike_conv2d_backward(
        ctx.provider, g_y, x, bits, ctx.spikes, weight, ctx.size, ctx.stride, ctx.padding,
        [need_x, need_weight],
    )  # fmt: skip
    g_bias = g_y.sum((0, 2, 3)) if need_bias else None
    return None, g_x if need_x else None, g_weight if need_weight else None, g_bias, None, None


spike_conv2d_op.register_autograd(_conv_grad, setup_context=_conv_setup)


def misfit(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int) -> str | None:
    """Why these tensors are no float32 convolution that the kernels know; None if they are."""
    given = [t for t in (x, weight, bias) if t is not None]
    if any(t.dtype != torch.float32 for t in given):
        return "not all tensors are float32"
    if any(t.device != x.device for t in given):
        return "the tensors are on different devices"
    if x.ndim != 4 or weight.ndim != 4 or x.shape[1] != weight.shape[1]:
        return f"a weight {list(weight.shape)} does not fit an input {list(x.shape)}"
    if bias is not None and tuple(bias.shape) != (weight.shape[0],):
        return f"the bias has shape {list(bias.shape)}, not [{weight.shape[0]}]"
    if stride < 1 or padding < 0 or min(Spatial.of(x.shape, weight, stride, padding).out) < 1:
        return "the output would be empty"
    return None if x.numel() and weight.numel() else "the input is empty"


def _require(wrong: str | None) -> None:
    if wrong:
        raise UserError(wrong)


def _smallest(provider: str, x: Tensor | None) -> Tensor | None:
    """What to keep of x `[.., C]` for backward: its bits if it is spikes, else x itself.

    A traced tensor has no values to look at, and a CUDA graph cannot wait for them while it is
    captured: it is kept as it is.
    """
    if x is None or _is_traced(x) or is_capturing(x) or x.dtype != torch.float32:
        return x
    bits, spikes = KERNELS[provider].pack(x.reshape(-1, x.shape[-1]))
    return bits if spikes >= 0 else x


def _is_traced(x: Tensor) -> bool:
    # Tracers wrap tensors in subclasses of their own (fake, functional).
    return type(x) not in (Tensor, nn.Parameter) or torch.compiler.is_compiling()


def is_capturing(x: Tensor) -> bool:
    """Whether work on x goes into a CUDA graph, where nothing may wait for the GPU."""
    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def _rows(g: Tensor | None) -> Tensor | None:
    """A dense gradient: autograd may hand over an expanded or a strided one."""
    return None if g is None else g.contiguous()


def _fake_spikes(
    y: Tensor, steps: int, numbers: Sequence[float], flags: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    _, R, C = y.shape
    moments = y.new_empty(4, C) if Rule.read(numbers, flags).moments else y.new_empty(0)
    return y.new_empty(steps, R, C), moments, y.new_empty(R, C)


def _normalized(
    y: Tensor, statistics: Tensor, weight: Tensor, bias: Tensor, eps: float,
    residual: Tensor | None, start: Tensor | None, decay: Tensor, threshold: Tensor, steps: int,
) -> Current:  # fmt: skip
    mean, var = statistics
    gain = (weight.double() * (var + eps).rsqrt()).to(y.dtype)
    return Current(y, mean.to(y.dtype), gain, bias, residual, start, decay, threshold, steps)


def _over_ranks(statistics: Tensor, count: float) -> Tensor:
    """Mean and variance of all ranks' values from each rank's own (Chan's rule)."""
    mean, var = statistics
    total = torch.cat([mean * count, mean.new_full((1,), count)])
    dist.all_reduce(total)
    everywhere = total[:-1] / total[-1]
    square = (var + (mean - everywhere).square()) * count
    dist.all_reduce(square)
    return torch.stack([everywhere, square / total[-1]])
