"""What runs on a GPU would launch, and the bytes of it, counted without one (`fake_gpu.py`).

Counted are

* every launch of a Triton kernel, which is not executed;
* every operation of PyTorch below autograd, as the dispatcher sees it: one kernel each, and of
  `convolution_backward` one for each gradient that is asked for. Not counted are views and
  allocations, which launch nothing;
* of operations on lists of tensors as many as PyTorch's CUDA code cuts the lists into
  (`launches_of_lists`), of a `cat` or `stack` one for each 128 tensors, of a sum in another type
  one for the cast, and those of `SEVERAL`. Their bytes are counted once.

Bytes are those of the memory behind the tensors of a launch: each that it reads or writes once, and
twice what it changes in place. An expanded dimension (stride 0) is no memory, a tensor that only
lends its shape or place in the graph is not read.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.fake_gpu import fake_gpu, same_layout

ALLOCATIONS = ("empty", "new_empty", "empty_like", "empty_strided", "new_empty_strided", "set_")
SHAPES_ALONE = ("new_full", "full_like", "zeros_like", "ones_like", "new_zeros", "new_ones")
"""Operations that read no value of their argument."""


SEVERAL = {"native_batch_norm": 3, "native_batch_norm_backward": 2}
"""Kernels of an operation: statistics, their update, the output; sums, the gradient."""
CAT = 128
"""Tensors that a launch of `cat` takes."""
CHUNK, CHUNKS = 65536, 320
"""Elements of a chunk, and chunks that a launch on lists of tensors takes."""
TENSORS = {1: 110, 2: 64, 3: 48, 4: 36, 5: 30}
"""Tensors of a list that a launch takes, by the number of lists. These limits are those of PyTorch
for CUDA 12; for CUDA 13 they are seven times as high, so that there are fewer launches."""


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
            return out
        self.add(name, *read, *written)
        lists = [x for x in args if is_list(x)]
        more = SEVERAL.get(name, 1) - 1
        if name.startswith(("_foreach_", "_fused_")):
            more = launches_of_lists(name, lists + [out] * is_list(out)) - 1
        elif name in ("cat", "stack"):
            more = (len(lists[0]) - 1) // CAT
        elif name == "sum" and read[0].dtype != written[0].dtype:
            more = 1
        for _ in range(more):
            self.add(name)
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


def is_list(x: object) -> bool:
    """True for a list of tensors."""
    return isinstance(x, list | tuple) and bool(x) and all(isinstance(y, Tensor) for y in x)


def launches_of_lists(name: str, lists: Sequence[Sequence[Tensor]]) -> int:
    """Launches of an operation on lists of tensors, pair by pair.

    lists: those that it reads and, where they are others, those that it writes.

    Pairs of different types or layouts have a launch of their own each. Norms take one to clear the
    sums of the chunks, and one to add them up.
    """
    lists = [each for each in lists if len(each) == len(lists[0])]
    if name == "_foreach_norm":
        return 2 + launches_of_lists("", lists[:1])
    for first, *others in zip(*lists, strict=True):
        if any(x.dtype != first.dtype or not same_layout(x, first) for x in others if x.ndim):
            return len(lists[0])
    launches = tensors = chunks = 0
    for x in lists[0]:
        tensors += 1
        for left in reversed(range(-(-x.numel() // CHUNK))):
            chunks += 1
            if chunks == CHUNKS or (tensors == TENSORS[min(len(lists), 5)] and not left):
                launches += 1
                chunks, tensors = 0, int(left > 0)
    return launches + (chunks > 0)


def bytes_of(x: Tensor) -> int:
    """Bytes of the memory that a tensor spans."""
    sizes = [1 if stride == 0 else size for size, stride in zip(x.shape, x.stride(), strict=True)]
    return torch.Size(sizes).numel() * x.element_size()


def is_no_copy(name: str, args: tuple[Any, ...]) -> bool:
    """True for what only tells something of a tensor."""
    return name in ("_unsafe_view", "lift_fresh", "is_same_size", "as_strided_", "promote_types")


@contextmanager
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[Launches]:
    """Inside the block work on the GPU of `fake_gpu` can be counted."""
    launches = Launches()
    with fake_gpu(monkeypatch, launches.add):
        yield launches
