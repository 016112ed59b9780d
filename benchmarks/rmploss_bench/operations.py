"""The operations alone, forward + backward, at the shapes that the network's layers have.

Each provider against a plain copy of the bytes that the operation has to read and write: what an
operation bound by memory cannot beat. The convolution of spikes is told against a dense `F.conv2d`
too, over spike densities. Nothing is measured that `gate_ops.judge` finds wrong.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss import ops
from rmploss.errors import UserError
from rmploss.ops.moments import MomentSpec
from rmploss.randomness import generator
from rmploss.surrogate import ClippedTanh
from rmploss_bench.case import IMAGE, Case
from rmploss_bench.gate_ops import judge
from rmploss_bench.plan import Conv, Layer, Neurons, layers
from rmploss_bench.timing import Act, Progress, Result, rounds

DENSITIES = (0.05, 0.1, 0.2, 0.3, 0.5, 0.6, 0.8)
"""Shares of ones in the spikes of a convolution."""
PAPER: dict[str, Any] = {
    "decay": 0.25,
    "v_threshold": 0.5,
    "v_reset": 0.0,
    "detach_reset": False,
    "surrogate": ClippedTanh(),
    "moments": MomentSpec(),
}
PASSES = {"lif": 5, "norm_lif": 9, "spike_conv2d": 2}
"""Tensors of the input's size that forward + backward read or write at least; a copy moves two.

lif: x, spikes; x, g, g_x. norm_lif: y (statistics), y, spikes; y, g, g_x; g_x, y, g_y: the gradient
of tdBN needs sums over all of g_x before any of g_y is known.
"""
TENSORS = 4
"""Of the input's size, that forward + backward have: input, output and their gradients."""
Call = tuple[str, Callable[..., Any], tuple[Tensor, ...], dict[str, Any]]
"""Name, operation, tensors, options."""


def operations(case: Case, names: list[str], repeats: int, progress: Progress) -> list[Result]:
    """Seconds of every operation by every provider; `names` is not used: these are all ours."""
    found: list[Result] = []
    todo = [*_todo(case)]
    for index, (what, call) in enumerate(todo):
        name, _, tensors, _ = call
        acts, status = _providers(call)
        acts["copy"] = _copy(tensors[0], PASSES[name] / 2)
        if name == "spike_conv2d":
            acts["dense-conv2d"] = _dense(call)

        def told(step: str, done: int, total: int, what: str = what, index: int = index) -> None:
            progress(f"{what}: {step}", index * total + done, len(todo) * total)

        seconds = rounds(acts, repeats, told, case.setting.device)
        every = dict.fromkeys([*status, *acts])
        found += [
            Result(name, f"{what} (s)", seconds.get(name, ()), status.get(name, "green"))
            for name in every
        ]
    return found


def _todo(case: Case) -> Iterator[tuple[str, Call]]:
    """Every distinct shape once: neurons, neurons behind a norm, convolutions by density."""
    shapes = [*layers(case.parts, case.state, IMAGE)]
    neurons = dict.fromkeys(layer.target for layer in shapes if isinstance(layer.part, Neurons))
    made = case.setting
    for shape in neurons:
        x = _drawn(case, made.T, made.batch, *shape)
        yield f"lif {list(x.shape)}", ("lif", ops.lif, (x,), PAPER)
    for shape in neurons:
        y = _drawn(case, made.T, made.batch, *shape)
        weight, bias = (torch.full((shape[0],), value).to(y) for value in (0.5, 0.0))
        options = {**PAPER, "eps": 1e-5}
        yield (
            f"norm_lif {list(y.shape)}",
            ("norm_lif", ops.norm_lif, (y, weight, bias), options),
        )
    yield from _convolutions(case, shapes)


def _convolutions(case: Case, shapes: list[Layer]) -> Iterator[tuple[str, Call]]:
    made, seen = case.setting, set()
    for layer in shapes[1:]:  # the first sees the image, not spikes
        if not isinstance(layer.part, Conv):
            continue
        weight = case.state[f"{layer.part.name}.conv.weight"].detach()
        key = (layer.source, layer.target, weight.shape)
        if key in seen:
            continue
        seen.add(key)
        for density in DENSITIES:
            values = torch.rand(
                made.T * made.batch, *layer.source, generator=generator(made.seed, "spikes")
            )
            spikes = (values < density).float().to(made.device)
            spikes = spikes.contiguous(memory_format=torch.channels_last)
            options = {"stride": layer.part.stride, "padding": weight.shape[-1] // 2}
            what = f"spike_conv2d {list(spikes.shape)} to {layer.target[0]} at {density:.0%}"
            yield what, ("spike_conv2d", ops.spike_conv2d, (spikes, weight), options)


def _drawn(case: Case, T: int, B: int, *shape: int) -> Tensor:
    """A current `[T, B, C, H, W]`, channels last in memory as a convolution leaves it."""
    random = generator(case.setting.seed, "current", *shape)
    values = torch.randn(T * B, *shape, generator=random).mul_(0.5).to(case.setting.device)
    return values.contiguous(memory_format=torch.channels_last).unflatten(0, (T, B))


def _providers(call: Call) -> tuple[dict[str, Act], dict[str, str]]:
    """Forward + backward by every provider that has the operation, and what the gate says."""
    name, operation, tensors, options = call
    acts: dict[str, Act] = {}
    status: dict[str, str] = {}
    for provider in ops.BACKENDS[1:]:  # the first is "auto"
        try:
            ops.explain(provider, tensors[0].device)
        except UserError as absent:
            status[provider] = str(absent)
            continue
        reds = judge(name, operation, tensors, {**options}, train=True, fast_by=provider)
        status[provider] = f"gate red: {'; '.join(reds)}" if reds else "green"
        if not reds:
            acts[provider] = _both_ways(operation, tensors, {**options, "backend": provider})
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
    """Copies from tensor to tensor around `TENSORS` of them: as cold as the operation's own."""
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
