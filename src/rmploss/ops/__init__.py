"""The operations, each once as an equation and once per provider, with one signature.

    reference   plain PyTorch, any device, float64 too: the truth (reference.py)
    cpu         native kernels: fused neurons, event-driven convolutions (cpu.py, native/)
    triton      the same neurons for GPUs (triton.py)

`backend="auto"` picks by device and by what the provider can do; a backend that is asked for by
name and cannot run raises. Nothing falls back silently: `rmploss doctor` and the record of every
run say what is picked, and why.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Unpack

import torch
from torch import Tensor

from rmploss.errors import UserError, unknown
from rmploss.ops import convolution, cpu, layer, providers, reference
from rmploss.ops.rule import NeuronOptions, Rule, rule_of
from rmploss.ops.tracing import is_capturing, is_traced, is_transformed

PROVIDERS = tuple(providers.PROVIDERS)
"""The providers by name."""
BACKENDS = ("auto", *PROVIDERS)
"""What `backend` may be."""
TRANSFORMED = "torch.func and forward-mode derivatives need plain operations (use the reference)"
"""Why no fused operation runs inside them."""
_ASKED: ContextVar[str] = ContextVar("backend", default="auto")


@contextmanager
def use_backend(backend: str) -> Iterator[None]:
    """Inside the block, `backend="auto"` means this one (in this thread, or task)."""
    check_backend(backend)
    token = _ASKED.set(backend)
    try:
        yield
    finally:
        _ASKED.reset(token)


def check_backend(backend: str) -> None:
    """Raise `UserError` for a backend that does not exist."""
    if backend not in BACKENDS:
        raise UserError("no such backend", [unknown("backend", backend, list(BACKENDS))])


def pick(backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The name of the provider that runs for `backend` on `device`."""
    return explain(backend, device, dtype)[0]


def explain(
    backend: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """The provider that runs for `backend` on `device`, and why. Raises `UserError`."""
    check_backend(backend)
    asked = _ASKED.get() if backend == "auto" else backend
    return providers.choose(asked, device, dtype)


def describe(device: torch.device) -> str:
    """What `auto` runs on a device, for a record: "cpu (avx512)"; its numbers depend on it."""
    provider = pick("auto", device)
    return f"cpu ({cpu.instruction_set()})" if provider == "cpu" else provider


def lif(
    x: Tensor,
    u: Tensor | None = None,
    *,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
    residual: Tensor | None = None,
    binary_residual: bool | None = None,
    repeats: int = 1,
    backend: str = "auto",
    **neuron: Unpack[NeuronOptions],
) -> tuple[Tensor, Tensor | None, Tensor]:
    """LIF neurons over time (Eqs. 1-3): spikes `[T, B, C, ...]`, moments `[4, C]` or None, last u.

    The input current is gain x + bias + residual. x: `[T, B, C, ...]`, or `[1, B, C, ...]` that
    stands for `repeats` equal steps; u: membrane before the first step `[B, C, ...]`, at rest if
    None; gain, bias: `[C]`; residual: `[T, B, C, ...]`. The membrane is float32 at least, also for
    half-precision input; spikes have the type of x. binary_residual: whether the residual is all
    0 and 1, as `binary` in `spike_conv2d`.
    """
    _check(x, u, residual, repeats, gain=gain, bias=bias)
    plan = _plan(x, backend, neuron)
    if plan is None:
        options = {"gain": gain, "bias": bias, "residual": residual, "repeats": repeats}
        spikes, sums, last = reference.lif(at_least_single(x), u, **options, **neuron)
        return spikes.to(x.dtype), sums, last
    spikes, sums, last, _ = layer.neurons(
        *plan, x, u, gain, bias, residual, repeats, neuron, binary_residual=binary_residual
    )
    return spikes, _moments(sums, neuron), last


def norm_lif(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    u: Tensor | None = None,
    *,
    eps: float,
    residual: Tensor | None = None,
    binary_residual: bool | None = None,
    repeats: int = 1,
    sync: bool = False,
    backend: str = "auto",
    **neuron: Unpack[NeuronOptions],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """tdBN in training (Eqs. 6-7), the shortcut and `lif` (Eqs. 1-3), in two passes over y.

    y: `[T, B, C, ...]`, the convolution's output; weight, bias: `[C]`, the weight times alpha V_th;
    residual `[T, B, C, ...]` is added to the normalized y; sync: statistics over all ranks.
    Returns what `lif` returns, and mean and biased variance of y per channel `[C]` (no gradient).
    Backward keeps y, and of a residual that is spikes only the bits; binary_residual: as in `lif`.
    """
    _check(y, u, residual, repeats, weight=weight, bias=bias)
    plan = _plan(y, backend, neuron)
    if plan is None:
        options = {"eps": eps, "residual": residual, "repeats": repeats, "sync": sync}
        wide = at_least_single(y)
        spikes, sums, last, mean, var = reference.norm_lif(
            wide, weight.to(wide.dtype), bias.to(wide.dtype), u, **options, **neuron
        )
        return spikes.to(y.dtype), sums, last, mean, var
    spikes, sums, last, statistics = layer.neurons(
        *plan, y, u, weight, bias, residual, repeats, neuron, eps, sync, binary_residual
    )
    mean, var, _ = statistics.to(last.dtype).unbind(0)
    return spikes, _moments(sums, neuron), last, mean, var


def spike_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    binary: bool | None = None,
    backend: str = "auto",
) -> Tensor:
    """The convolution `[N, C', H', W']` of x `[N, C, H, W]` with weight `[C', C, K, K]`.

    As `torch.nn.functional.conv2d`, for finite x and weight and gradients below 1e36. Where x is
    spikes (all 0 or 1) backward keeps them as bits, and on the CPU a sparse x is convolved event by
    event. y has the type of x, or autocast's; in float64 it is PyTorch's own convolution.

    binary: whether x is spikes, if the caller knows. None: x is looked at, which waits for a GPU,
    and is kept as it is where nobody can look, in traced and captured graphs. True is a promise:
    bits are kept everywhere without a wait. Where bits are kept a broken one is told: by a warning
    on the CPU, which looks anyway; by `UserError` in a traced graph; by an assertion that fails on
    the GPU when it gets there. False: a GPU neither looks nor packs.
    """
    provider, _ = explain(backend, x.device, x.dtype)
    if provider == "reference":
        return reference.spike_conv2d(x, weight, bias, stride=stride, padding=padding)
    autocast = torch.is_autocast_enabled(x.device.type) and x.dtype in convolution.TYPES
    if autocast:
        x = x.to(torch.get_autocast_dtype(x.device.type))
    reason = convolution.misfit(x, weight, bias, stride, padding)
    if not autocast and weight.dtype != x.dtype:
        reason = f"the weight is {weight.dtype}, x is {x.dtype}"
    if is_transformed():
        reason = TRANSFORMED
    if not reason and provider != "cpu" and _is_plain(x, binary):
        return convolution.plain(x, weight, bias, stride, padding)
    if not reason:
        return convolution.convolve(provider, x, weight, bias, stride, padding, bool(binary))
    y = reference.spike_conv2d(x, weight, bias, stride=stride, padding=padding)
    if _is_named(backend):  # what fits no convolution at all has raised by now
        raise UserError(f"backend {provider!r} cannot run this convolution: {reason}")
    return y


def _is_plain(x: Tensor, binary: bool | None) -> bool:
    """Whether bits of x would be of no use to a GPU, or nobody can look whether it has any.

    Tracing is asked first: torch.compile cannot trace the question for a capture.
    """
    if binary is False or not torch.is_grad_enabled():
        return True
    return binary is None and (is_traced(x) or is_capturing(x))


def asked() -> str:
    """What the innermost `use_backend` asked for; "auto" outside of all."""
    return _ASKED.get()


def check_current(x: Tensor) -> None:
    """Raise `UserError` for an input current that is no real number."""
    if not x.is_floating_point():
        raise UserError(f"x is {x.dtype}; a neuron needs a floating-point input current")


def at_least_single(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _plan(x: Tensor, backend: str, neuron: NeuronOptions) -> tuple[str, Rule] | None:
    """The provider and the rule of a fused run; None for the reference."""
    provider, _ = explain(backend, x.device, x.dtype)
    if provider == "reference":
        return None
    rule = TRANSFORMED if is_transformed() else rule_of(neuron)
    if isinstance(rule, Rule):
        return provider, rule
    if _is_named(backend):
        raise UserError(f"backend {provider!r} cannot run: {rule}")
    return None


def _is_named(backend: str) -> bool:
    """Whether a provider was asked for by name."""
    return backend != "auto" or _ASKED.get() != "auto"


def _moments(sums: Tensor, neuron: NeuronOptions) -> Tensor | None:
    """What the caller asked for: nothing, or the sums with or without their graph."""
    spec = neuron.get("moments")
    if spec is None:
        return None
    return sums if spec.differentiable else sums.detach()


def _check_constants(x: Tensor, **constants: Tensor | None) -> None:
    for name, value in constants.items():
        if value is not None and tuple(value.shape) != (x.shape[2],):
            raise UserError(f"the {name} has shape {list(value.shape)}, not [{x.shape[2]}]")


def _check(
    x: Tensor, u: Tensor | None, residual: Tensor | None, repeats: int, **constants: Tensor | None
) -> None:
    """Raise `UserError` for tensors that do not fit each other."""
    check_current(x)
    _check_shapes(x, u, residual, repeats)
    _check_constants(x, **constants)


def _check_shapes(x: Tensor, u: Tensor | None, residual: Tensor | None, repeats: int) -> None:
    if x.ndim < 3 or not x.numel():
        raise UserError(
            f"x has shape {list(x.shape)}; a neuron needs [T, B, C, ...], time first, none 0"
        )
    if not isinstance(repeats, int) or repeats < 1 or (repeats > 1 and x.shape[0] != 1):
        raise UserError(f"repeats = {repeats} needs one time step, x has shape {list(x.shape)}")
    for name, given in (("carried membrane", u), ("residual", residual)):
        if given is not None and given.device != x.device:
            raise UserError(f"the {name} is on {given.device}, the input current on {x.device}")
    if u is not None and u.shape != x.shape[1:]:
        raise UserError(
            f"the carried membrane has shape {list(u.shape)}, one step of x {list(x.shape[1:])}: "
            "call reset_state() before a batch of another shape"
        )
    if residual is not None and residual.shape != (x.shape[0] * repeats, *x.shape[1:]):
        raise UserError(
            f"the residual has shape {list(residual.shape)}, the input current {list(x.shape)}"
            + (f" at {repeats} equal steps" if repeats > 1 else "")
        )


__all__ = ["lif", "norm_lif", "spike_conv2d", "use_backend"]
