"""Who can run the fused operations where, and why not: the one table behind `backend`."""

from collections.abc import Callable

import torch

from rmploss.errors import UserError
from rmploss.ops import cpu
from rmploss.ops.fused import KERNELS


def _reference(device: torch.device, dtype: torch.dtype) -> str | None:
    return None


def _cpu(device: torch.device, dtype: torch.dtype) -> str | None:
    if cpu.MISSING:
        return cpu.MISSING
    if device.type != "cpu":
        return f"its kernels run on the CPU, not on {device.type}"
    if dtype not in (torch.float32, torch.float64):
        return f"its kernels compute in float32 and float64, not in {dtype}"
    return None


PROVIDERS: dict[str, Callable[[torch.device, torch.dtype], str | None]] = {
    "reference": _reference,
    "cpu": _cpu,
}
"""Provider -> why it cannot run on a device with a type; None if it can."""
FAST = ("cpu",)
"""The providers that `auto` prefers to the reference, in this order."""

KERNELS["cpu"] = cpu.NativeKernels()


def choose(backend: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The provider for a backend ("auto" or a provider), and why. Raises `UserError`."""
    if backend != "auto":
        reason = PROVIDERS[backend](device, dtype)
        if reason:
            raise UserError(f"backend {backend!r} cannot run on {device}: {reason}")
        return backend, "asked for"
    reasons = []
    for name in FAST:
        reason = PROVIDERS[name](device, dtype)
        if reason is None:
            return name, "the fastest that runs here"
        reasons.append(f"{name}: {reason}")
    return "reference", "; ".join(reasons)
