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
from torch.autograd import forward_ad

from rmploss.errors import UserError, unknown
from rmploss.ops import cpu, fused, providers, reference
from rmploss.ops.rule import NeuronOptions, Rule, rule_of

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
    repeats: int = 1,
    backend: str = "auto",
    **neuron: Unpack[NeuronOptions],
) -> tuple[Tensor, Tensor | None, Tensor]:
    """LIF neurons over time (Eqs. 1-3): spikes `[T, B, C, ...]`, moments `[4, C]` or None, last u.

    The input current is gain x + bias + residual. x: `[T, B, C, ...]`, or `[1, B, C, ...]` that
    stands for `repeats` equal steps; u: membrane before the first step `[B, C, ...]`, at rest if
    None; gain, bias: `[C]`; residual: `[T, B, C, ...]`. The membrane is float32 at least, also for
    half-precision input; spikes have the type of x.
    """
    check_current(x)
    _check_shapes(x, u, residual, repeats)
    _check_constants(x, gain=gain, bias=bias)
    wide = at_least_single(x)
    plan = _plan(wide, backend, neuron)
    if plan is None:
        options = {"gain": gain, "bias": bias, "residual": residual, "repeats": repeats}
        spikes, sums, last = reference.lif(wide, u, **options, **neuron)
        return spikes.to(x.dtype), sums, last
    provider, rule = plan
    rows = _Rows(wide, repeats)
    spikes, sums, last = torch.ops.rmploss.lif(
        provider, rows.static(residual), rows.constant(gain), rows.constant(bias),
        rows.pack(residual), rows.pack_state(u), rows.constant(neuron["decay"]),
        rows.constant(neuron["v_threshold"]), rows.steps, rule.numbers, rule.flags,
    )  # fmt: skip
    return rows.spikes(spikes, x.dtype), _moments(sums, neuron), rows.state(last)


def norm_lif(
    y: Tensor,
    weight: Tensor,
    bias: Tensor,
    u: Tensor | None = None,
    *,
    eps: float,
    residual: Tensor | None = None,
    repeats: int = 1,
    sync: bool = False,
    backend: str = "auto",
    **neuron: Unpack[NeuronOptions],
) -> tuple[Tensor, Tensor | None, Tensor, Tensor, Tensor]:
    """tdBN in training (Eqs. 6-7), the shortcut and `lif` (Eqs. 1-3), in two passes over y.

    y: `[T, B, C, ...]`, the convolution's output; weight, bias: `[C]`, the weight times alpha V_th;
    residual `[T, B, C, ...]` is added to the normalized y; sync: statistics over all ranks.
    Returns what `lif` returns, and mean and biased variance of y per channel `[C]` (no gradient).
    Backward keeps y, and of a residual that is spikes only the bits.
    """
    check_current(y)
    _check_shapes(y, u, residual, repeats)
    wide = at_least_single(y)
    _check_constants(y, weight=weight, bias=bias)
    weight, bias = weight.to(wide.dtype).contiguous(), bias.to(wide.dtype).contiguous()
    plan = _plan(wide, backend, neuron)
    if plan is None:
        options = {"eps": eps, "residual": residual, "repeats": repeats, "sync": sync}
        spikes, sums, last, mean, var = reference.norm_lif(
            wide, weight, bias, u, **options, **neuron
        )
        return spikes.to(y.dtype), sums, last, mean, var
    provider, rule = plan
    rows = _Rows(wide, repeats)
    spikes, sums, last, statistics = torch.ops.rmploss.norm_lif(
        provider, rows.static(residual), weight, bias, rows.pack(residual), rows.pack_state(u),
        rows.constant(neuron["decay"]), rows.constant(neuron["v_threshold"]), rows.steps, eps, sync,
        rule.numbers, rule.flags,
    )  # fmt: skip
    mean, var = statistics.to(wide.dtype)
    sums = _moments(sums, neuron)
    return rows.spikes(spikes, y.dtype), sums, rows.state(last), mean, var


def spike_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    stride: int = 1,
    padding: int = 0,
    backend: str = "auto",
) -> Tensor:
    """The convolution `[N, C', H', W']` of x `[N, C, H, W]` with weight `[C', C, K, K]`.

    As `torch.nn.functional.conv2d`, for finite x and weight and gradients below 1e36. Where x is
    spikes (all 0 or 1) backward keeps them as bits, and on the CPU a sparse x is convolved event by
    event. Under autocast, and in other types than float32, it is PyTorch's own convolution.
    """
    provider, _ = explain(backend, x.device, x.dtype)
    if provider == "reference":
        return reference.spike_conv2d(x, weight, bias, stride=stride, padding=padding)
    reason = fused.misfit(x, weight, bias, stride, padding)
    if torch.is_autocast_enabled(x.device.type):
        reason = "autocast chooses types for PyTorch's own convolution only"
    if is_transformed():
        reason = TRANSFORMED
    # Only the CPU has use for bits without a gradient; counting them makes a GPU wait.
    useless = provider != "cpu" and (not torch.is_grad_enabled() or fused.is_capturing(x))
    if not reason and not useless:
        return torch.ops.rmploss.spike_conv2d(provider, x, weight, bias, stride, padding)[0]
    y = reference.spike_conv2d(x, weight, bias, stride=stride, padding=padding)
    if reason and _is_named(backend):  # what fits no convolution at all has raised by now
        raise UserError(f"backend {provider!r} cannot run this convolution: {reason}")
    return y


def is_transformed() -> bool:
    """Whether forward-mode derivatives or a transform of `torch.func` are under way.

    The fused operations have one derivative, backward; there, the reference runs.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


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


class _Rows:
    """`[T, B, C, ...]` as the rows `[T, R, C]` of the fused operations, and back.

    No copy where the memory is channels-last already.
    """

    def __init__(self, x: Tensor, repeats: int) -> None:
        self.x = x
        self.repeats = repeats
        self.steps = x.shape[0] * repeats
        self.inner = (x.shape[1], *x.shape[3:], x.shape[2])  # [B, ..., C]

    def pack(self, x: Tensor | None) -> Tensor | None:
        """Rows of a sequence."""
        if x is None:
            return None
        rows = x.to(self.x.dtype).movedim(2, -1).contiguous()
        return rows.view(x.shape[0], -1, x.shape[2])

    def static(self, residual: Tensor | None) -> Tensor:
        """Rows of x; a static x with a shortcut that changes over time becomes a sequence."""
        x = self.x
        if self.repeats > 1 and residual is not None:
            x = x.expand(self.steps, *x.shape[1:])
        rows = self.pack(x)
        assert rows is not None
        return rows

    def pack_state(self, u: Tensor | None) -> Tensor | None:
        """Rows `[R, C]` of a membrane."""
        if u is None:
            return None
        return u.to(self.x.dtype).movedim(1, -1).contiguous().view(-1, self.inner[-1])

    def constant(self, value: float | Tensor | None) -> Tensor | None:
        """A constant as one number per channel `[C]`."""
        if value is None:
            return None
        C = self.inner[-1]
        if not isinstance(value, Tensor):
            return self.x.new_full((C,), value)
        return value.to(self.x.dtype).expand(C).contiguous()

    def spikes(self, rows: Tensor, dtype: torch.dtype) -> Tensor:
        """Spikes `[T, B, C, ...]` of rows."""
        return rows.view(self.steps, *self.inner).movedim(-1, 2).to(dtype)

    def state(self, rows: Tensor) -> Tensor:
        """A membrane `[B, C, ...]` of rows."""
        return rows.view(self.inner).movedim(-1, 1)


__all__ = ["fused", "lif", "norm_lif", "spike_conv2d", "use_backend"]
