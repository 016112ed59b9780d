"""What a training step would launch on a GPU, and the bytes of it, counted without one.

The step runs on fake tensors, which have shapes and no values: a read of one by the host raises.
Counted are

* every launch of a Triton kernel, which is not executed;
* every operation of PyTorch below autograd, as the dispatcher sees it: one kernel each, and of
  `convolution_backward` one for each gradient that is asked for. Not counted are views and
  allocations, which launch nothing.

Bytes are those of the memory behind the tensors of a launch: each that it reads or writes once, and
twice what it changes in place. An expanded dimension (stride 0) is no memory, a tensor that only
lends its shape or place in the graph is not read.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rmploss import RMPLoss, membrane_stats, ops
from rmploss.models import create
from rmploss.ops import backends, constants, native

ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "set_")
SHAPES_ALONE = ("new_full", "full_like", "zeros_like", "ones_like", "new_zeros", "new_ones")
"""Operations that read no value of their argument."""


class Launch(NamedTuple):
    """A kernel: its name, the line of the package that asks for it, and its bytes."""

    name: str
    line: str
    bytes: int


class Launches(TorchDispatchMode):
    """Lists what runs inside the block."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[Launch] = []

    def add(self, name: str, *tensors: Tensor) -> None:
        """One launch with the tensors that it reads and writes."""
        frame = sys._getframe()
        while frame and "/src/rmploss/" not in frame.f_code.co_filename:
            frame = frame.f_back
        line = "autograd"
        if frame:
            line = f"{frame.f_code.co_filename.rpartition('/rmploss/')[2]}:{frame.f_lineno}"
        self.found.append(Launch(name, line, sum(bytes_of(x) for x in tensors)))

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operation, and list it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        name = func._schema.name.removeprefix("aten::")
        alias = [r.alias_info for r in func._schema.returns]
        is_view = any(a is not None and not a.is_write for a in alias)
        if func.namespace != "aten" or is_view or name in ALLOCATIONS or is_no_copy(name, args):
            return out
        written = [x for x in tree_leaves(out) if isinstance(x, Tensor)]
        read = [x for x in tree_leaves(args) if isinstance(x, Tensor)]
        if name in SHAPES_ALONE:
            read = []
        elif name == "copy_":
            read = read[1:]
        if name == "convolution_backward":
            g_y, x, weight, *_ = args
            for wanted, other, gradient in zip(args[-1], (weight, x), out, strict=False):
                if wanted:
                    self.add(name, g_y, other, gradient)
        else:
            self.add(name, *read, *written)
        return out

    @property
    def bytes(self) -> int:
        """Of all launches."""
        return sum(launch.bytes for launch in self.found)

    def table(self, values: int) -> str:
        """Who launches what: number, bytes per value, kernel, line."""
        numbers, sizes = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for name, line, size in self.found:
            numbers[name, line] += 1
            sizes[name, line] += size
        rows = [
            f"{n:4d} {sizes[at] / values:6.2f}  {at[0]:24s} {at[1]}" for at, n in numbers.items()
        ]
        head = f"{len(self.found)} launches, {self.bytes / values:.2f} bytes per value"
        return "\n".join([head, *sorted(rows, reverse=True)])


def bytes_of(x: Tensor) -> int:
    """Bytes of the memory that a tensor spans."""
    sizes = [1 if stride == 0 else size for size, stride in zip(x.shape, x.stride(), strict=True)]
    return torch.Size(sizes).numel() * x.element_size()


def is_no_copy(name: str, args: tuple[Any, ...]) -> bool:
    """True for what only tells something of a tensor."""
    return name in ("_unsafe_view", "lift_fresh", "is_same_size", "as_strided_", "promote_types")


@contextmanager
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    """Inside the block the Triton backend runs as on a GPU, on fake tensors, without kernels."""
    from triton.runtime.jit import JITFunction

    launches = Launches()

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = [x for x in (*args, *options.values()) if isinstance(x, Tensor)]
        launches.add(f"triton.{self.fn.__name__}", *given)

    monkeypatch.setattr(JITFunction, "run", run)
    monkeypatch.setitem(backends.PROBLEMS, "triton", lambda device: None)
    monkeypatch.setattr(constants, "_KEPT", {})
    # Fake tensors would have the registered operations called, as tracers do: eager mode is meant.
    for module in [*sys.modules.values()]:
        # `native` asks for memory of the CPU, which on a GPU it would not.
        is_ours = module.__name__.startswith("rmploss.") and module is not native
        if is_ours and hasattr(module, "is_traced"):
            monkeypatch.setattr(module, "is_traced", lambda *tensors: False)
    with FakeTensorMode(), ops.use_backend("triton"):
        yield launches


def make_step(batch: int, precision: torch.dtype | None) -> Callable[[], int]:
    """A function that runs a training step of ResNet20, T = 4, and returns its neuron-steps.

    precision: of autocast. Augmentation, clipping and averaging are not part of the step.
    """
    net, rmp = create("resnet20"), RMPLoss()
    options: Any = {"momentum": 0.9, "weight_decay": 1e-4, "fused": True}
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, **options)
    images, labels = torch.rand(batch, 3, 32, 32), torch.zeros(batch, dtype=torch.int64)
    # As the kernels' own casts, those of autocast are not kept.
    cast = {"dtype": precision, "enabled": precision is not None, "cache_enabled": False}

    def step() -> int:
        with torch.autocast("cpu", **cast), membrane_stats(net, rmp.spec) as stats:
            logits = net(images)
        loss = torch.nn.functional.cross_entropy(logits.float(), labels) + rmp(stats, 0.5)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return sum(layer.elements for layer in stats)

    return step
