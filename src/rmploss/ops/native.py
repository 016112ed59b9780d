"""The native module (C++, SIMD, OpenMP): loading, kept memory, addresses, records.

Kernels get addresses, so their caller answers for shapes, types, layouts and lifetimes: `address`
refuses a tensor that is not dense, not on the CPU or of another type. Threads are PyTorch's
(`torch.get_num_threads()`), the OpenMP runtime is the one that PyTorch loaded. The kernels' results
do not depend on the number of threads.
"""

import math
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from rmploss.ops.layout import wide
from rmploss.ops.tracing import is_traced

SURROGATES = ("ClippedTanh", "Rectangle", "Triangle", "Sigmoid", "ArcTan")
"""The surrogates that kernels compute, in the order of their numbers (`lif/inputs.py`)."""
RESETS = ("HARD", "SOFT", "SOFT_BY_NUMBER")
"""The resets in the order of their numbers (`lif/inputs.py`)."""
FIELDS = {
    "Layer": (
        "is_double", "steps", "rows", "channels", "is_static", "y", "statistics", "eps", "gain",
        "bias", "residual", "residual_bits", "start", "decay", "threshold", "reset_to", "reset",
        "detach_reset", "surrogate", "slope", "damping", "moments", "of_input", "detach_target",
        "p", "threads",
    ),
    "Forward": ("spikes", "bits", "count", "moments", "last"),
    "Backward": (
        "g_spikes", "g_moments", "g_last", "g_current", "g_start", "sums", "constants",
    ),
    "Convolution": (
        "images", "height", "width", "channels", "out_height", "out_width", "out_channels",
        "kernel_height", "kernel_width", "stride", "padding", "threads",
    ),
}  # fmt: skip
"""The records that the kernels read, by field; native/bindings.cpp has the same names.

`module.layer(steps=4, ...)` makes one; a field that is left out is 0, another name an error."""

FUNCTIONS = (
    "event_forward", "event_lif", "event_weight_gradient", "fingerprint", "lif_backward",
    "lif_forward", "make_blocks", "norm_gradient", "pack", "pool", "statistics", "unpack",
    "winograd",
)  # fmt: skip
"""The kernels that are called here."""


def _load() -> tuple[Any, str | None]:
    """The native module of this version, by its fields and kernels, or why there is none."""
    try:
        module: Any = import_module("rmploss.ops._native")
        for name, fields in FIELDS.items():
            found = {field for field in vars(getattr(module, name)) if not field.startswith("_")}
            if found != set(fields):
                raise ImportError(f"{name} of another version: {sorted(found ^ set(fields))}")
        absent = [name for name in FUNCTIONS if not hasattr(module, name)]
        if absent:
            raise ImportError(f"kernels of another version: no {', '.join(absent)}")
        if not set(SURROGATES) <= set(module.surrogates()) or not set(RESETS) <= set(
            module.resets()
        ):
            raise ImportError("surrogates or resets of another version")
    except (ImportError, AttributeError) as error:
        return None, (
            f"the native kernels are not built ({error}): reinstall with GCC or Clang, and "
            "`pip install -v` to see what the compiler says"
        )
    return module, None


module, MISSING = _load()
TYPES = (torch.float32, torch.float64)
"""The types that the kernels compute in."""


def address(x: Tensor | None, dtype: torch.dtype) -> int:
    """Where a dense array begins, 0 for none. Raises `ValueError` for one that is not dense."""
    if x is None or not x.numel():
        return 0
    if not (x.is_cpu and x.dtype == dtype and x.is_contiguous()) or x.is_neg():
        raise _not_dense(x, dtype)
    return x.data_ptr()


def map_address(x: Tensor) -> int:
    """Where float32 maps `[N, C, H, W]` begin, channels last. Raises `ValueError` for others."""
    dense = x.is_contiguous(memory_format=torch.channels_last)
    if not (x.is_cpu and x.dtype == torch.float32 and dense) or x.is_neg():
        raise _not_dense(x, torch.float32)
    return x.data_ptr()


def _not_dense(x: Tensor, dtype: torch.dtype) -> ValueError:
    wanted = f"a dense {dtype} tensor on the CPU"
    return ValueError(f"a native kernel needs {wanted}; not {x.dtype}, {x.device}, {x.stride()}")


def as_wide(x: Tensor) -> Tensor:
    """x in the type in which it is computed: half precision as float32."""
    return x if x.dtype in TYPES else x.to(wide(x.dtype))


def empty(like: Tensor, *shape: int, last: bool = False) -> Tensor:
    """An empty tensor of the type and device of `like`; large ones over memory that is kept.

    last: maps `[N, C, H, W]` whose memory is `[N, H, W, C]`.
    """
    size = math.prod(shape) * like.element_size()
    # The system's allocator reuses small blocks itself, cheaper.
    kept = MISSING is None and like.is_cpu and like.dtype in TYPES and size >= module.SMALL
    if not kept or is_traced(like):
        if not last:
            return like.new_empty(shape)
        options: dict[str, Any] = {"dtype": like.dtype, "device": like.device}
        return torch.empty(shape, memory_format=torch.channels_last, **options)
    order = (0, 2, 3, 1) if last else range(len(shape))
    strides, step = [0] * len(shape), 1
    for dim in reversed(order):
        strides[dim], step = step, step * shape[dim]
    return module.empty(shape, strides, like.dtype == torch.float64)


def instruction_sets() -> list[str]:
    """The ones that the kernels were built for and this machine runs, the widest first."""
    return [] if module is None else module.instruction_sets()


def instruction_set() -> str:
    """The one in use; "none" without native kernels."""
    return "none" if module is None else module.instruction_set()


def use_instruction_set(name: str) -> None:
    """Use another one that this machine runs: for tests and measurements."""
    module.choose(name)


def poison(on: bool) -> None:
    """Fill native memory with NaN when it is taken: for tests."""
    module.poison(on)


def memory() -> tuple[int, int, int]:
    """Bytes of native memory in use, kept for the next step, and the most ever in use."""
    return (0, 0, 0) if module is None else module.memory()


def release_memory() -> int:
    """Return kept memory to the system; the result is the number of bytes."""
    return 0 if module is None else module.release_kept()
