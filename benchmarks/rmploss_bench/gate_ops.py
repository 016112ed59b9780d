"""Every operation a network calls, judged where it is called: fast against plain and float64.

    error of the fast one  <=  factor x error of plain float32  +  rounding of a sum of that length

with a factor of 2, for convolutions `WINOGRAD`; both against the reference in float64, as the
largest error of any element, forward and backward. Spikes are discrete: as few may differ as lie
within rounding of the threshold. A neuron with such a spike gets no gradient in the comparison, so
that it cannot blur the others.
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

OPERATIONS = ("lif", "norm_lif", "spike_conv2d")
"""Those that are judged, as far as they exist."""
WINOGRAD = 16
"""A direct convolution's error may grow by this much: F(4x4, 3x3) has some ten times its error.

The input gradient of a 3x3 convolution may be computed that way. Lavin and Gray (CVPR 2016) give
the price of the transforms; 10 to 16 times were measured here, 40 eps of the largest element.
"""
FEW = 8
"""Spikes that may differ at random, whatever the size."""
EPS = torch.finfo(torch.float32).eps
Operation = Callable[..., Any]


@contextmanager
def judged(reds: list[str], *, train: bool) -> Iterator[Callable[[], int]]:
    """Judge every call of an operation inside the block; yields the number of calls so far.

    reds: gets what is wrong. The calls return what the reference returns. train: backward as well.
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
        if not self.inside:  # an operation may be made of others
            self.inside = True
            try:
                self.calls += 1
                self.reds += judge(name, operation, args, options, train=self.train)
            finally:
                self.inside = False
        return operation(*args, **{**options, "backend": "reference"})


@dataclass(frozen=True)
class Run:
    """One call: its floating outputs, and the gradients of its floating inputs where asked for."""

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
    """What is wrong with one call by the provider `fast_by`, in words; empty if nothing is."""
    with torch.set_grad_enabled(train):
        fast = _run(operation, args, options, fast_by, torch.float32)
        plain = _run(operation, args, options, "reference", torch.float32)
        exact = _run(operation, args, options, "reference", torch.float64)
    spiking = name != "spike_conv2d"
    flipped = _flipped(fast, plain, exact) if spiking else None
    reds = _spikes(fast, plain, exact) if spiking else []
    measure = _Measure(exact, flipped, 2 if spiking else WINOGRAD)
    triples = [*zip(fast.outputs, plain.outputs, exact.outputs, strict=True)][int(spiking) :]
    for index, (a, b, c) in enumerate(triples):
        reds += measure(f"output {index + int(spiking)}", a, b, c)
    if train:
        gradients = [_gradients(run, flipped) for run in (fast, plain, exact)]
        for index, (a, b, c) in enumerate(zip(*gradients, strict=True)):
            reds += measure(f"gradient of input {index}", a, b, c)
    shape = list(exact.inputs[0].shape)
    return [f"{name} on {shape}: {red}" for red in reds]


def _run(
    operation: Operation, args: tuple[Any, ...], options: dict[str, Any], how: str, to: torch.dtype
) -> Run:
    inputs: list[Tensor] = []

    def own(value: Any) -> Any:
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        leaf = value.detach().to(to).clone()
        if leaf.ndim:
            inputs.append(leaf.requires_grad_(torch.is_grad_enabled()))
        return leaf

    named = {key: own(value) for key, value in options.items()}
    done = operation(*map(own, args), **{**named, "backend": how})
    every = done if isinstance(done, tuple) else (done,)
    return Run(inputs, [x for x in every if isinstance(x, Tensor) and x.is_floating_point()])


def _flipped(fast: Run, plain: Run, exact: Run) -> Tensor:
    """The neurons `[B, C, ...]` of which any run fired otherwise at any time."""
    reference = exact.outputs[0]
    differs = (fast.outputs[0] != reference) | (plain.outputs[0] != reference)
    return differs.any(0)


def _spikes(fast: Run, plain: Run, exact: Run) -> list[str]:
    own, usual = (int((run.outputs[0] != exact.outputs[0]).sum()) for run in (fast, plain))
    allowed = 2 * usual + FEW + int(4 * EPS * exact.outputs[0].numel())
    return [f"{own} spikes differ, {allowed} may"] if own > allowed else []


def _gradients(run: Run, flipped: Tensor | None) -> list[Tensor]:
    """The gradients of the inputs for seeded gradients of the differentiable outputs."""
    able = [output for output in run.outputs if output.requires_grad]
    given = []
    for index, output in enumerate(able):
        drawn = torch.randn(output.shape, generator=generator(0, "gate", index))
        drawn = drawn.to(output) * (1.0 if output is run.outputs[0] else 0.1)
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


class _Measure:
    """Compares three tensors by the largest error of an element."""

    def __init__(self, exact: Run, flipped: Tensor | None, factor: int) -> None:
        self.factor = factor
        x = exact.inputs[0]
        channels = x.shape[1] if x.ndim == 4 else x.shape[2]  # 4: maps of a convolution
        self.flipped = flipped
        self.length = max(x.numel() // channels, *(t[0].numel() for t in exact.inputs))
        # What neurons that fired otherwise may add to a sum over all: few, and each is bounded.
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
        rounding = 2 * EPS * math.sqrt(self.length) * float(exact.abs().max())
        allowed = self.factor * errors[1] + rounding + stray
        if errors[0] <= allowed:
            return []
        return [f"{what} is off by {errors[0]:.1e}, {allowed:.1e} allowed"]
