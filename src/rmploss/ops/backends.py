"""The backends of the operations: which can run where, which one runs, and why.

reference   plain PyTorch, any device, float64 too: the equations
cpu         native kernels (native/): fused neurons, event-driven convolutions
triton      the neurons as GPU kernels
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

from rmploss.errors import UserError, unknown
from rmploss.ops import native, triton
from rmploss.ops.tracing import needs_plain_operations

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
"""The types that the fused operations take."""


def _reference(device: torch.device) -> str | None:
    return None


def _cpu(device: torch.device) -> str | None:
    if native.MISSING or device.type == "cpu":
        return native.MISSING
    return f"its kernels run on the CPU, not on {device.type}"


PROBLEMS: dict[str, Callable[[torch.device], str | None]] = {
    "reference": _reference,
    "cpu": _cpu,
    "triton": triton.missing,
}
"""Backend -> why it cannot run on a device; None if it can."""
BACKENDS = ("auto", *PROBLEMS)
"""What `backend` may be."""
FAST = {"cpu": "cpu", "cuda": "triton"}
"""Type of device -> the backend that `auto` prefers to the reference there."""
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


def asked() -> str:
    """The backend that the innermost `use_backend` asked for; "auto" outside of all."""
    return _ASKED.get()


def check_backend(backend: str) -> None:
    """Raise `UserError` for a backend that does not exist."""
    if backend not in BACKENDS:
        raise UserError("no such backend", [unknown("backend", backend, list(BACKENDS))])


def choose(
    backend: str, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[str, str]:
    """The backend that runs an operation on a tensor of that device and type, and why.

    backend: "auto" (what `use_backend` asked for, else the fastest that can run), or a backend by
        name. Raises `UserError` for a backend asked for by name that cannot run.
    """
    name = _ASKED.get() if backend == "auto" else backend
    named = name != "auto"
    if name not in BACKENDS:
        check_backend(name)
    if not named:
        name = FAST.get(device.type, "reference")
    if name == "reference":
        return name, "asked for" if named else f"no other backend runs on {device.type}"
    problem = native.MISSING if name == device.type == "cpu" else PROBLEMS[name](device)
    if problem is None and dtype not in FLOATS:
        problem = f"its kernels take no {dtype}"
    if problem is None:
        problem = needs_plain_operations()
    if problem is None:
        return name, "asked for" if named else "the fastest that runs here"
    if named:
        raise UserError(f"backend {name!r} cannot run on {device}: {problem}")
    return "reference", f"{name}: {problem}"


def is_named(backend: str) -> bool:
    """True if a backend was asked for by name, in the call or by `use_backend`."""
    return backend != "auto" or _ASKED.get() != "auto"


def pick(backend: str, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
    """The name of the backend that runs for `backend` on `device`. Raises `UserError`."""
    return choose(backend, device, dtype)[0]


def describe(device: torch.device) -> str:
    """What `auto` runs on a device, for a record: "cpu (avx512)"; numbers depend on it."""
    name = pick("auto", device)
    return f"cpu ({native.instruction_set()})" if name == "cpu" else name
