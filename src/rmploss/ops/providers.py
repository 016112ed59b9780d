"""Who can run the fused operations where, and why not: the one table behind `backend`."""

from collections.abc import Callable

import torch

from rmploss.errors import UserError
from rmploss.ops import cpu, triton
from rmploss.ops.kernels import KERNELS

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def _reference(device: torch.device, dtype: torch.dtype) -> str | None:
    return None


def _cpu(device: torch.device, dtype: torch.dtype) -> str | None:
    if cpu.MISSING:
        return cpu.MISSING
    if device.type != "cpu":
        return f"its kernels run on the CPU, not on {device.type}"
    if dtype not in FLOATS:
        return f"its kernels know no {dtype}"
    return None


def _triton(device: torch.device, dtype: torch.dtype) -> str | None:
    if dtype not in FLOATS:
        return f"its kernels know no {dtype}"
    return triton.missing(device)


PROVIDERS: dict[str, Callable[[torch.device, torch.dtype], str | None]] = {
    "reference": _reference,
    "cpu": _cpu,
    "triton": _triton,
}
"""Provider -> why it cannot run on a device with a type; None if it can."""
FAST = {"cpu": "cpu", "cuda": "triton"}
"""Type of device -> the provider that `auto` prefers to the reference there."""

KERNELS["cpu"] = cpu.NativeKernels()
KERNELS["triton"] = triton.TritonKernels()  # imports Triton when it first runs, not before


def choose(backend: str, device: torch.device, dtype: torch.dtype) -> tuple[str, str]:
    """The provider for a backend ("auto" or a provider), and why. Raises `UserError`."""
    if backend != "auto":
        reason = PROVIDERS[backend](device, dtype)
        if reason:
            raise UserError(f"backend {backend!r} cannot run on {device}: {reason}")
        return backend, "asked for"
    name = FAST.get(device.type)
    if name is None:
        return "reference", f"no other provider runs on {device.type}"
    reason = PROVIDERS[name](device, dtype)
    if reason:
        return "reference", f"{name}: {reason}"
    return name, "the fastest that runs here"
