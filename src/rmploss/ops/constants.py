"""Constant vectors, built once: a decay or threshold per channel, weights of a sum over layers.

Each would otherwise be a launch per layer and step. They are never written and never freed, so that
a CUDA graph may read them.
"""

import torch
from torch import Tensor

from rmploss.ops.tracing import is_traced, needs_plain_operations

_KEPT: dict[tuple[object, ...], Tensor] = {}


def filled(value: float, count: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The vector `[count]` of one value. Not to be written."""
    return vector(((value, count),), dtype, device)


def vector(runs: tuple[tuple[float, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """The vector of runs of equal values. Not to be written.

    runs: values and how often each stands in a row, in their order.
    """
    # The tensors of a tracer or of a transform are not to be met again outside of it.
    if is_traced() or needs_plain_operations():
        return _built(runs, dtype, device)
    key = (runs, dtype, device)
    found = _KEPT.get(key)
    if found is None:
        with torch.inference_mode(False):  # a tensor of inference mode could not be saved later
            found = _built(runs, dtype, device)
        # Memory that is taken while a graph is captured belongs to the graph.
        if device.type != "cuda" or not torch.cuda.is_current_stream_capturing():
            _KEPT[key] = found
    return found


def _built(runs: tuple[tuple[float, int], ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    if len(runs) == 1:
        return torch.full((runs[0][1],), runs[0][0], dtype=dtype, device=device)
    return torch.cat([torch.full((n,), x, dtype=dtype, device=device) for x, n in runs])
