"""A GPU without a GPU: fake tensors on "cuda:0", which have shapes and no values.

Kernels of Triton are launched and not run. Inside `Strict` everything raises that a CUDA graph
cannot hold: a read of a tensor by the host, and a copy between the host's memory and the GPU's.

PyTorch's autograd engine works for each device in a thread of that device, of which there is none
without a GPU. `backward` walks the same nodes in its place.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from heapq import heappop, heappush
from itertools import count
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensor, FakeTensorMode
from torch.utils import _foreach_utils
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from rmploss.engine.build import (
    make_average,
    make_dataset,
    make_loss,
    make_network,
    make_objective,
)
from rmploss.engine.distributed import World
from rmploss.engine.step import TrainingStep
from rmploss.engine.training_state import TrainingState
from rmploss.ops import backends, constants, native
from rmploss.ops.tracing import as_captured
from rmploss.recipes import Recipe

GPU = torch.device("cuda", 0)
DEVICE = torch.ops.prim.device.default
"""What `x.device` asks of a fake tensor: half of all calls, answered at once."""


class HostError(Exception):
    """Work inside a step that needs the host's memory."""


@contextmanager
def fake_gpu(
    monkeypatch: pytest.MonkeyPatch, on_kernel: Callable[..., None] = lambda name, *tensors: None
) -> Iterator[None]:
    """Inside the block tensors on `GPU` can be made, and what runs on them is what is captured.

    on_kernel: gets the name and the tensors of each kernel of Triton.
    """
    from triton.runtime.jit import JITFunction

    def launch(kernel: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> None:
        given = [x for x in (*args, *options.values()) if isinstance(x, Tensor)]
        on_kernel(f"triton.{kernel.fn.__name__}", *given)

    monkeypatch.setattr(JITFunction, "run", launch)
    monkeypatch.setitem(backends.PROBLEMS, "triton", lambda device: None)
    monkeypatch.setattr(constants, "_KEPT", {})
    # Fake tensors would have the registered operations called, as tracers do: eager mode is meant.
    for module in [*sys.modules.values()]:
        # `native` asks for memory of the CPU, which on a GPU it would not.
        is_ours = module.__name__.startswith("rmploss.") and module is not native
        if is_ours and hasattr(module, "is_traced"):
            monkeypatch.setattr(module, "is_traced", lambda *tensors: False)
    for name in ("_select_conv_backend", "_conv_determine_backend_memory_format"):
        monkeypatch.setattr(torch._C, name, in_float(getattr(torch._C, name)))
    for where, name, value in (
        (torch.cuda.amp.common, "amp_definitely_not_available", lambda: False),
        (torch.cuda, "is_bf16_supported", lambda: True),
        (torch.cuda, "is_current_stream_capturing", lambda: False),
        (torch.cuda, "device", lambda device: nullcontext()),
        (Tensor, "backward", backward),
        (FakeTensor, "__deepcopy__", copied),
        (_foreach_utils, "_foreach_supported_types", [Tensor, nn.Parameter, FakeTensor]),
    ):
        monkeypatch.setattr(where, name, value, raising=where is not FakeTensor)
    with FakeTensorMode(), Unfaked(), as_captured():
        yield


def in_float(choose: Callable[..., Any]) -> Callable[..., Any]:
    """A choice of a convolution as made in float32: in half precision it asks for a real GPU."""

    def chosen(x: Tensor, weight: Tensor, *args: Any, **options: Any) -> Any:
        if x.dtype in (torch.bfloat16, torch.float16):
            x, weight = (
                torch.empty_strided(y.shape, y.stride(), device=y.device) for y in (x, weight)
            )
        return choose(x, weight, *args, **options)

    return chosen


class Unfaked(TorchDispatchMode):
    """Skips what has no fake form: fused optimizers, which change tensors and return nothing."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, or nothing."""
        if func is DEVICE:
            return args[0].fake_device
        if func._schema.name.startswith("aten::_fused_"):
            return None
        return func(*args, **(kwargs or {}))


class Strict(TorchDispatchMode):
    """Raises `HostError` for an operation on tensors of both the host and the GPU.

    A tensor of the host without dimensions is an argument of the kernel, as a number is, unless it
    is copied.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run an operation, and look at its tensors."""
        if func is DEVICE:
            return args[0].fake_device
        out = func(*args, **(kwargs or {}))
        found = [x for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor)]
        name = func._schema.name
        host = [x for x in found if x.device != GPU and (x.ndim or "copy" in name)]
        if host and len(host) < len(found):
            raise HostError(f"{name} between the memories of the host and the GPU")
        return out


def on_gpu(x: Tensor) -> Tensor:
    """A tensor on the GPU with the shape, type and layout of x."""
    there = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype, device=GPU)
    return nn.Parameter(there, x.requires_grad) if isinstance(x, nn.Parameter) else there


def copied(x: Tensor, memo: dict[int, Any]) -> Tensor:
    """A deep copy of a tensor on the GPU: PyTorch's own would copy the mode with it."""
    return memo.setdefault(id(x), on_gpu(x))


def moved(net: nn.Module) -> Any:
    """`net.to(GPU)`, which exchanges tensors in a way that fake ones do not allow."""
    new: dict[int, Tensor] = {}
    for module in net.modules():
        for held in (module._parameters, module._buffers):
            held: dict[str, Any]
            for name, x in held.items():
                if x is not None:
                    held[name] = new.setdefault(id(x), on_gpu(x))
    return net


def make_step(recipe: Recipe) -> TrainingStep:
    """A training step of a recipe on the GPU, of a batch that lies there."""
    dataset, world = make_dataset(recipe), World(0, 1, 0, GPU)
    net = moved(make_network(recipe, dataset)).train()
    state = TrainingState(recipe, net, world)
    state.average = make_average(recipe, net, 10)
    *time, C, H, W = dataset.shape(recipe.T)
    images = torch.empty(*time, recipe.batch_size, C, H, W, device=GPU)
    labels = torch.zeros(recipe.batch_size, dtype=torch.int64, device=GPU)
    loss, objective = make_loss(recipe), make_objective(recipe)
    return TrainingStep(recipe, net, loss, objective, state, world, lambda: (images, labels))


# backward ----------------------------------------------------------------------------------------


def backward(loss: Tensor) -> None:
    """`Tensor.backward` of a scalar. Of the nodes that are ready, the one made last runs first."""
    root: Any = loss.grad_fn
    missing = edges_to(root)
    arrived: dict[Any, dict[int, Tensor]] = defaultdict(dict)
    order = count()  # so that no two entries of the heap are equal
    ready = [(0, next(order), root)]
    with torch.no_grad():
        arrived[root][0] = torch.ones_like(loss)
        while ready:
            node = heappop(ready)[-1]
            gradients = run(node, arrived.pop(node, {}))
            for (reader, place), g in zip(node.next_functions, gradients, strict=True):
                if reader is None:
                    continue
                if g is not None:
                    g, before = fitted(g, reader, place), arrived[reader].get(place)
                    arrived[reader][place] = g if before is None else before + g
                missing[reader] -= 1
                if not missing[reader]:
                    heappush(ready, (-reader._sequence_nr(), next(order), reader))


def edges_to(root: Any) -> dict[Any, int]:
    """The number of edges that lead to each node below `root`."""
    counts: dict[Any, int] = defaultdict(int)
    seen, rest = {root}, [root]
    while rest:
        for node, _ in rest.pop().next_functions:
            if node is not None:
                counts[node] += 1
                if node not in seen:
                    seen.add(node)
                    rest.append(node)
    return counts


def run(node: Any, arrived: dict[int, Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients that a node hands on, one for each of its edges."""
    edges = node.next_functions
    if not arrived:
        return (None,) * len(edges)
    given = [arrived.get(place) for place in range(len(node._input_metadata))]
    if hasattr(node, "variable"):
        accumulate(node.variable, arrived[0])
        return ()
    if not isinstance(node, torch.autograd.function.BackwardCFunction):
        found: Any = node(*given)
        return found if isinstance(found, tuple) else (found,)
    found = node.apply(*given)
    found = found if isinstance(found, tuple) else (found,)
    # One gradient for each argument; edges are those of tensors.
    wanted = (g for g, needed in zip(found, node.needs_input_grad, strict=True) if needed)
    return tuple(None if reader is None else next(wanted) for reader, _ in edges)


def accumulate(leaf: Tensor, g: Tensor) -> None:
    """Add to a gradient; the first is taken as it is where its layout is the leaf's."""
    if leaf.grad is not None:
        leaf.grad.add_(g)
    elif same_layout(g, leaf):
        leaf.grad = g.detach()
    else:
        there = torch.empty_strided(leaf.shape, leaf.stride(), dtype=g.dtype, device=g.device)
        leaf.grad = there.copy_(g)


def same_layout(x: Tensor, y: Tensor) -> bool:
    """True if elements of both lie in the same order: of a dimension of one no stride counts."""
    each = zip(x.shape, x.stride(), y.stride(), strict=True)
    return x.shape == y.shape and all(n == 1 or a == b for n, a, b in each)


def fitted(g: Tensor, node: Any, place: int) -> Tensor:
    """A gradient in the shape and type of the tensor that it belongs to."""
    made = node._input_metadata[place]
    if g.shape != torch.Size(made.shape):
        g = g.sum_to_size(made.shape)
    return g if g.dtype == made.dtype else g.to(made.dtype)
