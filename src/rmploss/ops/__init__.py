"""The operations, each once as an equation and once per provider, with one signature.

    reference   plain PyTorch, any device, float64 too: the truth (reference.py)

`backend="auto"` picks by device; a backend that is asked for by name and cannot run raises. Nothing
falls back silently: `rmploss doctor` and the record of every run say what was picked.
"""

from collections.abc import Callable
from types import ModuleType

import torch
from torch import Tensor

from rmploss.errors import UserError, unknown
from rmploss.ops import reference
from rmploss.ops.moments import MomentSpec
from rmploss.surrogate import Surrogate

Lif = Callable[..., tuple[Tensor, Tensor | None, Tensor]]
"""The operation as every provider has it: see `reference.lif`."""
PROVIDERS: dict[str, ModuleType] = {"reference": reference}
"""Backend name -> the module that implements the operations."""


def pick(backend: str, device: torch.device) -> str:
    """The name of the provider that runs for `backend` on `device`."""
    if backend == "auto":
        return "reference"
    if backend not in PROVIDERS:
        raise UserError("no such backend", [unknown("backend", backend, ["auto", *PROVIDERS])])
    return backend


def lif(
    x: Tensor,
    u: Tensor | None = None,
    *,
    decay: float | Tensor,
    v_threshold: float | Tensor,
    v_reset: float | None,
    detach_reset: bool,
    surrogate: Surrogate,
    moments: MomentSpec | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor | None, Tensor]:
    """LIF neurons over time (Eqs. 1-3): spikes `[T, B, C, ...]`, moments `[4, C]` or None, last u.

    x: input current `[T, B, C, ...]`; u: membrane before the first step `[B, C, ...]`, at rest if
    None; decay, v_threshold: a number, or one per channel `[C]`. The membrane is float32 at
    least, also for half-precision input; spikes have the type of x.
    """
    if x.ndim < 3 or not x.numel():
        raise UserError(
            f"x has shape {list(x.shape)}; a neuron needs [T, B, C, ...], time first, none 0"
        )
    check_current(x)
    wide = at_least_single(x)
    if u is None:
        u = torch.full_like(wide[0], v_reset or 0.0)
    elif u.shape != x.shape[1:]:
        raise UserError(
            f"the carried membrane has shape {list(u.shape)}, one step of x {list(x.shape[1:])}: "
            "call reset_state() before a batch of another shape"
        )
    run: Lif = PROVIDERS[pick(backend, x.device)].lif
    spikes, sums, last = run(
        wide,
        u,
        decay=_per_channel(decay, wide),
        v_threshold=_per_channel(v_threshold, wide),
        v_reset=v_reset,
        detach_reset=detach_reset,
        surrogate=surrogate,
        moments=moments,
    )
    return spikes.to(x.dtype), sums, last


def check_current(x: Tensor) -> None:
    """Raise `UserError` for an input current that is no real number."""
    if not x.is_floating_point():
        raise UserError(f"x is {x.dtype}; a neuron needs a floating-point input current")


def at_least_single(x: Tensor) -> Tensor:
    """Half precision as float32; float32 and float64 as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _per_channel(value: float | Tensor, x: Tensor) -> float | Tensor:
    """A tensor `[C]` in the shape that broadcasts against one step `[B, C, ...]` of x."""
    if isinstance(value, Tensor) and value.ndim == 1:
        return value.view(-1, *[1] * (x.ndim - 3))
    return value
