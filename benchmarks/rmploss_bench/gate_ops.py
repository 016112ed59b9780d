"""Compare every operation that a network calls, on its actual input, with the reference.

    error of the fast result  <=  factor x error of the reference in float32  +  rounding of the sum

Both errors are measured against the reference in float64: the largest error of any element, forward
and backward. The factor is 2, for convolutions `WINOGRAD`. Spikes are 0 or 1, so their number of
differences is bounded instead, by the spikes that rounding may put on the other side of the
threshold. A neuron with such a spike is left out of the gradients, whose sums it would change.

Under autocast the inputs keep the types that the network gives them, and so does the reference of
plain operations; the reference in float64 gets the same values. "In float32" above is then "in the
precision of the call", and the rounding of a result in half precision is allowed for once more.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from rmploss import ops
from rmploss.randomness import generator

OPERATIONS = ("lif_layer", "spike_conv2d")
"""The operations of `rmploss.ops` that networks call."""
WINOGRAD = 16
"""Allowed error of a convolution, as a multiple of the direct convolution's; dimensionless.

The input gradient of a 3x3 convolution may be computed by Winograd's F(4x4, 3x3), whose transforms
cost precision (Lavin and Gray, CVPR 2016). 10 to 16 times the direct error was measured here, 40
eps of the largest element.
"""
FEW = 8
"""Number of spikes that may always differ, whatever the size of the tensor."""
EPS = torch.finfo(torch.float32).eps
Operation = Callable[..., Any]


@contextmanager
def judged(reds: list[str], *, train: bool) -> Iterator[Callable[[], int]]:
    """Compare every call of an operation inside the block; yields a counter of these calls.

    reds: this list receives the errors, in words.
    train: compare the gradients as well.

    Every call returns the result of the reference.
    """
    found = {name: getattr(ops, name) for name in OPERATIONS if hasattr(ops, name)}
    judge = _Judge(reds, train)
    try:
        for name, operation in found.items():
            setattr(ops, name, partial(judge, name, operation))
        yield lambda: judge.calls
    finally:
        for name, operation in found.items():
            setattr(ops, name, operation)


class _Judge:
    def __init__(self, reds: list[str], train: bool) -> None:
        self.reds, self.train = reds, train
        self.calls = 0
        self.inside = False

    def __call__(self, name: str, operation: Operation, *args: Any, **options: Any) -> Any:
        if not self.inside:  # an operation may call others
            self.inside = True
            try:
                self.calls += 1
                self.reds += judge(name, operation, args, options, train=self.train)
            finally:
                self.inside = False
        return operation(*args, **{**options, "backend": "reference"})


@dataclass(frozen=True)
class Run:
    """One call: its floating-point inputs, leaves of the graph, and its floating-point outputs."""

    inputs: list[Tensor]
    outputs: list[Tensor]


def judge(
    name: str,
    operation: Operation,
    args: tuple[Any, ...],
    options: dict[str, Any],
    *,
    train: bool,
    fast_by: str = "auto",
) -> list[str]:
    """The errors of one call of an operation, in words; empty if there are none.

    name: of the operation.
    operation: the function.
    args: its positional arguments.
    options: its keyword arguments.
    train: compare the gradients as well.
    fast_by: the backend that is compared with the reference.
    """
    args, options = _as_tensors(args, options)
    kind = args[0].device.type
    own = None if torch.is_autocast_enabled(kind) else torch.float32
    with torch.set_grad_enabled(train):
        fast = _run(operation, args, options, fast_by, own)
        plain = _run(operation, args, options, "reference", own)
        with torch.autocast(kind, enabled=False):
            exact = _run(operation, args, options, "reference", torch.float64)
    spiking = name != "spike_conv2d"
    flipped = _flipped(fast, plain, exact) if spiking else None
    reds = _spikes(fast, plain, exact) if spiking else []
    measure = _Measure(exact, flipped, 2 if spiking else WINOGRAD)
    triples = [*zip(fast.outputs, plain.outputs, exact.outputs, strict=True)][int(spiking) :]
    for index, (a, b, c) in enumerate(triples):
        reds += measure(f"output {index + int(spiking)}", a, b, c)
    if train:
        gradients = [_gradients(run, flipped, like=fast) for run in (fast, plain, exact)]
        for index, (a, b, c) in enumerate(zip(*gradients, strict=True)):
            reds += measure(f"gradient of input {index}", a, b, c)
    shape = list(exact.inputs[0].shape)
    return [f"{name} on {shape}: {red}" for red in reds]


def _as_tensors(
    args: tuple[Any, ...], options: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call with tensors in place of `Spikes`; kernels find that they are 0 and 1."""
    first = args[0]
    if isinstance(first, ops.Spikes):  # of a convolution, which takes maps
        args = (first.dense.flatten(0, 1), *args[1:])
    options = {name: ops.dense_of(value) for name, value in options.items()}
    # The last membrane is compared, too; the network's running statistics are not touched.
    wanted = {"look": True, "as_spikes": False, "last": True, "running": None}
    changes = {name: value for name, value in wanted.items() if name in options}
    return args, {**options, **changes}


def _run(
    operation: Operation,
    args: tuple[Any, ...],
    options: dict[str, Any],
    how: str,
    to: torch.dtype | None,
) -> Run:
    inputs: list[Tensor] = []

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaf = value.detach().to(to or value.dtype).clone()
        if leaf.ndim:
            inputs.append(leaf.requires_grad_(torch.is_grad_enabled()))
        return leaf

    given = [*map(own, args)]  # first of all x, of whose shape the bounds are made
    named = {key: own(value) for key, value in options.items() if key != "neuron"}
    if "neuron" in options:
        named["neuron"] = {key: own(value) for key, value in options["neuron"].items()}
    done = operation(*given, **{**named, "backend": how})
    every = done if isinstance(done, tuple) else (done,)
    return Run(inputs, [x for x in every if isinstance(x, Tensor) and x.is_floating_point()])


def _flipped(fast: Run, plain: Run, exact: Run) -> Tensor:
    """Mask `[B, C, ...]`: neurons of which a spike differs between float32 and float64."""
    reference = exact.outputs[0]
    differs = (fast.outputs[0] != reference) | (plain.outputs[0] != reference)
    return differs.any(0)


def _spikes(fast: Run, plain: Run, exact: Run) -> list[str]:
    own, usual = (int((run.outputs[0] != exact.outputs[0]).sum()) for run in (fast, plain))
    allowed = 2 * usual + FEW + int(4 * EPS * exact.outputs[0].numel())
    return [f"{own} spikes differ, {allowed} may"] if own > allowed else []


def _gradients(run: Run, flipped: Tensor | None, *, like: Run) -> list[Tensor]:
    """The gradients of the inputs, for seeded random gradients of the differentiable outputs.

    run: of which the gradients are taken.
    flipped: neurons that get no gradient.
    like: the run whose types the random gradients are rounded to, so that all runs get the same.
    """
    able = [output for output in run.outputs if output.requires_grad]
    given = []
    kinds = [other.dtype for other in like.outputs if other.requires_grad]
    for index, (output, kind) in enumerate(zip(able, kinds, strict=True)):
        drawn = torch.randn(output.shape, generator=generator(0, "gate", index))
        drawn = drawn.to(kind).to(output) * (1.0 if output is run.outputs[0] else 0.125)
        given.append(_without(drawn, flipped))
    found = torch.autograd.grad(able, run.inputs, given, allow_unused=True)
    return [
        torch.zeros_like(leaf) if gradient is None else gradient
        for leaf, gradient in zip(run.inputs, found, strict=True)
    ]


def _without(x: Tensor, flipped: Tensor | None) -> Tensor:
    if flipped is None or x.shape[-flipped.ndim :] != flipped.shape:
        return x
    return x.masked_fill(flipped, 0.0)


def _is_half(x: Tensor) -> bool:
    return x.dtype in (torch.bfloat16, torch.float16)


class _Measure:
    """Compare a fast and a plain result with the exact one by the largest error of an element."""

    def __init__(self, exact: Run, flipped: Tensor | None, factor: int) -> None:
        self.factor = factor
        x = exact.inputs[0]
        channels = x.shape[1] if x.ndim == 4 else x.shape[2]  # 4: maps of a convolution
        self.flipped = flipped
        self.length = max(x.numel() // channels, *(t[0].numel() for t in exact.inputs))
        # Bound of what the flipped neurons add to a sum over all neurons: each adds at most peak^2.
        peak = 1 + float(x.detach().abs().max())
        steps = exact.outputs[0].shape[0]
        self.stray = 0.0 if flipped is None else float(flipped.sum()) * steps * peak**2

    def __call__(self, what: str, fast: Tensor, plain: Tensor, exact: Tensor) -> list[str]:
        exact = exact.detach()
        whole = self.flipped is not None and exact.shape[-self.flipped.ndim :] == self.flipped.shape
        stray = self.stray / self.length if whole else self.stray
        errors = [
            float(_without(run.detach().double() - exact, self.flipped).abs().max())
            for run in (fast, plain)
        ]
        # Sums are taken in float32; in half precision the result is rounded once more.
        eps = 2 * EPS * math.sqrt(self.length) + torch.finfo(fast.dtype).eps * _is_half(fast)
        rounding = eps * float(exact.abs().max())
        allowed = self.factor * errors[1] + rounding + stray
        if errors[0] <= allowed:
            return []
        return [f"{what} is off by {errors[0]:.1e}, {allowed:.1e} allowed"]
