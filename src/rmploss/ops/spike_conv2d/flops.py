"""What `torch.utils.flop_counter` counts for the operation: the FLOPs of a dense convolution.

Importing PyTorch's counter imports Triton, so the formulas are registered at the first dispatch
after that import. A counter that exists already gets them as well.
"""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import _get_current_dispatch_mode_stack


def _forward(
    backend: str, x: Any, bits: Any, count: Any, weight: Any, *_: Any, out_shape: Any, **__: Any
) -> int:
    """As of a dense convolution: what silent neurons save is in no shape."""
    return _counter().conv_flop_count(x, weight, out_shape[0])


def _backward(
    backend: str, g_y: Any, x: Any, bits: Any, count: Any, weight: Any, size: Sequence[int],
    stride: int, padding: int, needs: Sequence[bool], **_: Any,
) -> int:  # fmt: skip
    """One such convolution for each gradient that is needed."""
    return sum(needs) * _counter().conv_flop_count(list(size), weight, g_y)


def register_formulas() -> None:
    """Register the formulas if the counter was imported; called before each dispatch."""
    if torch.compiler.is_compiling() or "torch.utils.flop_counter" not in sys.modules:
        return
    counter = _counter()
    formulas: dict[Any, Callable[..., int]] = {
        torch.ops.rmploss.spike_conv2d: _forward,
        torch.ops.rmploss.spike_conv2d_backward: _backward,
    }
    for operation, formula in formulas.items():
        if operation not in counter.flop_registry:
            counter.register_flop_formula(operation)(formula)
    modes: list[Any] = _get_current_dispatch_mode_stack()
    for mode in modes:
        if isinstance(mode, counter._FlopCounterMode):
            mode.counter.flop_registry = {**counter.flop_registry, **mode.counter.flop_registry}


def _counter() -> Any:
    return sys.modules["torch.utils.flop_counter"]
