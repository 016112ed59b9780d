"""A capture without a GPU: record every operation of a function once, then replay the record.

As with a CUDA graph, Python does not run in a replay: operations read and write the tensors of the
recording, and a number that Python computed while recording stays what it was. Reading a tensor on
the host raises `CaptureError`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from rmploss.engine.capture import CaptureError, Function
from rmploss.randomness import generators_kept

READS = {"aten::_local_scalar_dense", "aten::nonzero", "aten::is_nonzero", "aten::equal"}
"""Operations for which the host waits for the values of a tensor."""


class Recorder(TorchDispatchMode):
    """Records the operations that run while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        """Refuse a read; run and record anything else."""
        if func.name().partition(".")[0] in READS:
            raise CaptureError(f"{func} reads a tensor on the host")
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        """Run the record: results go where those of the recording are."""
        with torch.no_grad():
            for func, args, kwargs, out in self.calls:
                again = func(*args, **kwargs)
                if func._schema.is_mutable:
                    continue
                for old, new in zip(tree_flatten(out)[0], tree_flatten(again)[0], strict=True):
                    if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                        old.detach().copy_(new)  # a new result; a view already is in its place


def tape(function: Function, tensors: Sequence[Tensor]) -> Function:
    """A `Capturer`; the operations must be PyTorch's (`--backend reference`)."""
    before = [tensor.detach().clone() for tensor in tensors]
    recorder = Recorder()
    try:
        with generators_kept(), recorder:
            function()
    finally:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
    return recorder.replay


def taped(monkeypatch: Any, capturer: Callable[..., Function] = tape) -> None:
    """Let runs on the CPU capture with `capturer` instead of CUDA graphs."""
    monkeypatch.setattr("rmploss.engine.loop.impossible", lambda world: "")
    monkeypatch.setattr("rmploss.engine.capture.impossible", lambda world: "")
    monkeypatch.setattr("rmploss.engine.loop.CudaGraphs", lambda device: capturer)
