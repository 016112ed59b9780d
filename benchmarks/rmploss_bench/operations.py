"""Single operations, forward + backward, at the shapes that the network's layers have.

Every backend is compared with a copy of the bytes that the operation has to read and write, which
no operation bound by memory can beat. The convolution of spikes is measured at several spike
densities and compared with a dense `F.conv2d`, too. A backend gets no figure for an operation in
which `gate_ops.judge` finds an error.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss import ops
from rmploss.errors import UserError
from rmploss.ops.lif.moments import MomentSpec
from rmploss.randomness import generator
from rmploss.surrogate import ClippedTanh
from rmploss_bench.blueprint import Conv, Layer, Neurons, layers
from rmploss_bench.gate_ops import judge
from rmploss_bench.timing import Act, Result, Ticker, rounds
from rmploss_bench.workload import Workload

DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.8)
"""Spike densities (share of ones) at which convolutions are measured; dimensionless."""
PAPER: dict[str, Any] = {
    "decay": 0.25,
    "v_threshold": 0.5,
    "v_reset": 0.0,
    "detach_reset": False,
    "surrogate": ClippedTanh(),
    "moments": MomentSpec(),
}
PASSES = {"lif": 5, "norm_lif": 9, "spike_conv2d": 2}
"""The least number of tensors of the input's size that forward + backward read or write.

A copy moves two. lif: x, spikes; x, g, g_x. norm_lif: y (statistics), y, spikes; y, g, g_x; g_x, y,
g_y: the gradient of tdBN needs sums over all of g_x before it can compute any of g_y.
"""
TENSORS = 4
"""The tensors of the input's size in forward + backward: input, output and their gradients."""
Call = tuple[str, Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]
"""One call of an operation: its name, the function, its tensors, its options."""


def operations(workload: Workload, names: list[str], repeats: int, tick: Ticker) -> list[Result]:
    """Seconds of every operation with every backend of rmploss.

    workload: network and batch that give the shapes.
    names: not used; no other library has these operations.
    repeats: rounds.
    tick: called with the progress of the work.
    """
    found: list[Result] = []
    todo = [*_todo(workload)]
    for index, (what, call) in enumerate(todo):
        name, _, tensors, _ = call
        acts, status = _backends(call)
        acts["copy"] = _copy(tensors[0], PASSES[name] / 2)
        if name == "spike_conv2d":
            acts["dense-conv2d"] = _dense(call)

        def tick_here(
            step: str, done: int, total: int, what: str = what, index: int = index
        ) -> None:
            tick(f"{what}: {step}", index * total + done, len(todo) * total)

        seconds = rounds(acts, repeats, tick_here, workload.conditions.device)
        every = dict.fromkeys([*status, *acts])
        found += [
            Result(name, f"{what} (s)", seconds.get(name, ()), status.get(name, "green"))
            for name in every
        ]
    return found


def _todo(workload: Workload) -> Iterator[tuple[str, Call]]:
    """A call for every distinct shape: neurons, neurons behind a norm, convolutions by density."""
    shapes = [*layers(workload.blueprint, workload.state, workload.image)]
    neurons = dict.fromkeys(layer.target for layer in shapes if isinstance(layer.part, Neurons))
    conditions = workload.conditions
    for shape in neurons:
        x = _drawn(workload, conditions.T, conditions.batch, *shape)
        yield f"lif {list(x.shape)}", ("lif", ops.lif, (x,), PAPER)
    for shape in neurons:
        y = _drawn(workload, conditions.T, conditions.batch, *shape)
        weight, bias = (torch.full((shape[0],), value).to(y) for value in (0.5, 0.0))
        options = {**PAPER, "eps": 1e-5}
        yield (
            f"norm_lif {list(y.shape)}",
            ("norm_lif", ops.norm_lif, (y, weight, bias), options),
        )
    yield from _convolutions(workload, shapes)


def _convolutions(workload: Workload, shapes: list[Layer]) -> Iterator[tuple[str, Call]]:
    conditions, seen = workload.conditions, set()
    for layer in shapes[1:]:  # the input of the first is the image, not spikes
        if not isinstance(layer.part, Conv):
            continue
        weight = workload.state[f"{layer.part.name}.conv.weight"].detach()
        key = (layer.source, layer.target, weight.shape)
        if key in seen:
            continue
        seen.add(key)
        for density in DENSITIES:
            values = torch.rand(
                conditions.T * conditions.batch,
                *layer.source,
                generator=generator(conditions.seed, "spikes"),
            )
            spikes = (values < density).float().to(conditions.device)
            spikes = spikes.contiguous(memory_format=torch.channels_last)
            options = {"stride": layer.part.stride, "padding": weight.shape[-1] // 2}
            what = f"spike_conv2d {list(spikes.shape)} to {layer.target[0]} at {density:.0%}"
            yield what, ("spike_conv2d", ops.spike_conv2d, (spikes, weight), options)


def _drawn(workload: Workload, T: int, B: int, *shape: int) -> Tensor:
    """A random current `[T, B, C, H, W]`, channels last in memory as a convolution returns it."""
    random = generator(workload.conditions.seed, "current", *shape)
    values = torch.randn(T * B, *shape, generator=random).mul_(0.5).to(workload.conditions.device)
    return values.contiguous(memory_format=torch.channels_last).unflatten(0, (T, B))


def _backends(call: Call) -> tuple[dict[str, Act], dict[str, str]]:
    """Forward + backward with every backend that passes the gate; the status of every backend."""
    name, operation, tensors, options = call
    acts: dict[str, Act] = {}
    status: dict[str, str] = {}
    for backend in ops.BACKENDS[1:]:  # the first is "auto"
        try:
            ops.choose(backend, tensors[0].device)
        except UserError as absent:
            status[backend] = str(absent)
            continue
        reds = judge(name, operation, tensors, {**options}, train=True, fast_by=backend)
        status[backend] = f"gate red: {'; '.join(reds)}" if reds else "green"
        if not reds:
            acts[backend] = _both_ways(operation, tensors, {**options, "backend": backend})
    return acts, status


def _both_ways(
    operation: Callable[..., Any], tensors: tuple[Tensor, ...], options: dict[str, Any]
) -> Act:
    leaves = tuple(tensor.clone().requires_grad_() for tensor in tensors)
    gradients: list[Tensor] = []

    def act() -> None:
        done = operation(*leaves, **options)
        outputs = done if isinstance(done, tuple) else (done,)
        able = [x for x in outputs[:2] if isinstance(x, Tensor) and x.requires_grad]
        if not gradients:
            gradients.extend(torch.ones_like(x) for x in able)
        torch.autograd.grad(able, leaves, gradients)

    return act


def _copy(x: Tensor, times: float) -> Act:
    """Copy x `times` times, around a ring of `TENSORS` tensors.

    The ring is as large as the tensors of the operation, so that the caches are as cold.
    """
    ring = [x.clone() for _ in range(TENSORS)]
    part = round(times % 1 * len(x))  # of T

    def act() -> None:
        for turn in range(int(times)):
            ring[(turn + 1) % TENSORS].copy_(ring[turn % TENSORS])
        ring[0][:part].copy_(ring[-1][:part])

    return act


def _dense(call: Call) -> Act:
    _, _, tensors, options = call
    return _both_ways(F.conv2d, tensors, {key: options[key] for key in ("stride", "padding")})
