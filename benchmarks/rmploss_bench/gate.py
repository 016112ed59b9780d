"""The gate: a contestant that does not compute the reference's network gets no figure.

Spikes make a network chaotic: a membrane that rounds to the other side of the threshold changes
every later spike, and two correct float32 networks may end with different logits. So the gate makes
three comparisons:

    float64             rounding is so small that no membrane changes sides: the logits of every
                        contestant equal those of our reference; for the contestants of rmploss,
                        the loss and all gradients do too
    each operation      rmploss, in the precision that is measured: every operation that the
                        network calls is compared on its actual input with the reference in that
                        precision and in float64 (`gate_ops`)
    in one pass         rmploss, in evaluation: layers that run as one operation give the logits of
                        their single operations, bit for bit
    ONNX Runtime        computes in float32; its spikes are compared instead (`onnx.py`)
    each layer          rmploss, and in bf16 also a peer: every layer's firing rate is close to the
                        reference's in float32
    bf16 as a whole     rmploss: logits, loss and gradients in bf16 differ from those in float64 by
                        at most `PLAIN` times as much as the reference's in bf16 do

A captured contestant is captured in float64, too, and its replay is compared. The comparisons of
whole networks take `IMAGES` images of the batch, the others take the whole batch.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from rmploss import ops
from rmploss.lifecycle import fold
from rmploss.stats import membrane_stats
from rmploss_bench import onnx
from rmploss_bench.blueprint import Neurons, layers
from rmploss_bench.capture import Captured
from rmploss_bench.contestants import contestant
from rmploss_bench.gate_ops import judged
from rmploss_bench.runners import NetRunner, autocast
from rmploss_bench.workload import Workload

IMAGES = 8
"""Number of images of the comparison in float64, which is slow."""
RATE = 1e-2
"""Allowed difference of a layer's firing rate, on top of chance; dimensionless.

Rounding moves only membranes close to the threshold. In bf16 a peer rounds each membrane at most
five times (convolution, norm, and two operations per time step that decay by 1/4), each by 2^-9 of
at most 1; the density of normalized membranes is at most 0.4: 0.4 x 2 x 5 x 2^-9 = 0.008.
"""
PLAIN = 2
"""Allowed error in bf16 as a multiple of that of plain PyTorch operations; dimensionless."""

Gate = Callable[[str], str]
"""Maps a contestant's name to "" if its gate is green, else to the reason why it is red."""


def gate(workload: Workload, *, train: bool) -> Gate:
    """The gate of a workload.

    workload: network and batch that all contestants get.
    train: True for the gate of training, False for that of evaluation.
    """
    exact = in_float64(workload)
    half = workload.conditions.precision == "bf16"

    @cache
    def wanted(rmp: bool) -> Outcome:
        return _reference(exact, train, rmp=rmp)

    @cache
    def operations(rmp: bool) -> list[str]:
        one_pass = [] if train else _passes(workload)
        return [*_operations(workload, train, moments=rmp), *_rates(workload, train), *one_pass]

    def judge(name: str) -> str:
        each = contestant(name)
        if not each.computes_the_network:
            return ""
        library, rmp = each.library, "+" in each.library
        if library == "onnxruntime":
            return "; ".join(onnx.differences(workload))
        reds = _differences(_outcome(exact, name, train), wanted(rmp), workload)
        if library == "rmploss-reference":
            return "; ".join(reds)
        if library.startswith("rmploss"):
            reds += operations(rmp)
            if half:
                reds += _half_differences(workload, name, train, wanted(rmp))
        elif half:
            reds += _peer_rates(workload, library, train)
        return "; ".join(reds)

    return judge


def in_float64(workload: Workload) -> Workload:
    """The workload in float64, with the first `IMAGES` images of its batch."""
    net = copy.deepcopy(workload.net).double()
    few = _few(workload)
    conditions = few.conditions.but(precision="float32")  # no autocast
    return replace(few, conditions=conditions, net=net, images=few.images.double())


def _few(workload: Workload) -> Workload:
    images, labels = workload.images[:IMAGES], workload.labels[:IMAGES]
    conditions = workload.conditions.but(batch=len(labels))
    return replace(workload, conditions=conditions, images=images, labels=labels)


Outcome = tuple[Tensor, Tensor | None, Tensor | None]
"""Logits; then, for rmploss in training, the loss and all gradients as one vector, else None."""


def _outcome(workload: Workload, name: str, train: bool) -> Outcome:
    runner = contestant(name)(workload, train)
    net = runner.runner if isinstance(runner, Captured) else runner
    assert isinstance(net, NetRunner)
    if train and name.startswith("rmploss"):
        return net.outcome(runner.step)
    if isinstance(runner, Captured):
        (runner.step if train else runner.infer)()
        return net.output.detach(), None, None
    return net.logits().detach(), None, None


def _reference(workload: Workload, train: bool, *, rmp: bool) -> Outcome:
    """The outcome of the reference operations, in training with RMP-Loss where `rmp` says so."""
    if not (train and rmp):
        return _outcome(workload, "rmploss-reference", train)
    with ops.use_backend("reference"):
        return _outcome(workload, "rmploss+rmp", train)


def _differences(got: Outcome, wanted: Outcome, workload: Workload) -> list[str]:
    bound = _rounding(workload)
    return [
        f"{name} differ by {deviation:.1e} in float64 (bound {bound:.1e})"
        for name, deviation in _deviations(got, wanted).items()
        if not deviation <= bound
    ]


def _half_differences(workload: Workload, name: str, train: bool, exact: Outcome) -> list[str]:
    """What differs more from float64 than `PLAIN` times the reference in the same precision."""
    few = _few(workload)
    plain = _deviations(_reference(few, train, rmp="+" in name), exact)
    found = _deviations(_outcome(few, name, train), exact)
    return [
        f"{what} differ by {found[what]:.1e} in bf16 ({PLAIN} x {plain[what]:.1e} may)"
        for what in found
        if not found[what] <= PLAIN * plain[what] + torch.finfo(torch.bfloat16).eps
    ]


def _deviations(got: Outcome, wanted: Outcome) -> dict[str, float]:
    """The norm of each difference over the norm of what is wanted; dimensionless."""
    names = ("logits", "loss", "gradients")
    return {
        name: float((a.double() - b).norm() / b.norm())
        for name, a, b in zip(names, got, wanted, strict=True)
        if a is not None and b is not None
    }


def _rounding(workload: Workload) -> float:
    """Bound of the relative rounding error in float64: eps x longest sum x depth, dimensionless.

    The longest sum is that of a norm's statistics in the first layer: T*B*H*W terms.
    """
    conditions = workload.conditions
    shapes = layers(workload.blueprint, workload.state, workload.image)
    depth = sum(isinstance(layer.part, Neurons) for layer in shapes)
    longest = conditions.T * min(conditions.batch, IMAGES) * workload.image[1] * workload.image[2]
    return torch.finfo(torch.float64).eps * longest * depth


def _operations(workload: Workload, train: bool, *, moments: bool) -> list[str]:
    """The errors of our operations in the precision that is measured, in words."""
    reds: list[str] = []
    with judged(reds, train=train) as calls, membrane_stats() if moments else nullcontext():
        _forward(workload, train, autocast(workload.conditions))
    if not calls():
        reds.append("the network called no operation that could be judged")
    return [*dict.fromkeys(reds)]


def _forward(
    workload: Workload, train: bool, precision: AbstractContextManager[object] | None = None
) -> None:
    net = copy.deepcopy(workload.net)
    net = net.train() if train else fold(net)
    with torch.set_grad_enabled(train), precision or nullcontext():
        net(workload.images)


def _passes(workload: Workload) -> list[str]:
    """Whether layers in one pass (`ops.conv_lif`) give other logits than their operations.

    Red, too, where no layer ran in one pass but the kernels for it compute this precision.
    """
    net = fold(copy.deepcopy(workload.net))
    with torch.no_grad(), autocast(workload.conditions):
        with _counted() as passes:
            found = net(workload.images)
        with membrane_stats():  # whose reading of every membrane separates the operations
            wanted = net(workload.images)
    reds = [] if torch.equal(found, wanted) else ["layers in one pass give other logits"]
    on_cpu = ops.choose("auto", found.device, workload.images.dtype)[0] == "cpu"
    if on_cpu and workload.conditions.precision == "float32" and not passes:
        reds.append("no layer ran in one pass")
    return reds


@contextmanager
def _counted() -> Iterator[list[ops.Spikes]]:
    """The spikes of every layer that runs in one pass inside the block."""
    run, passes = ops.conv_lif, list[ops.Spikes]()

    def counted(*arguments: Any) -> ops.Spikes | None:
        spikes = run(*arguments)
        if spikes is not None:
            passes.append(spikes)
        return spikes

    with patch.object(ops, "conv_lif", counted):
        yield passes


def _rates(workload: Workload, train: bool) -> list[str]:
    with membrane_stats() as fast:
        _forward(workload, train, autocast(workload.conditions))
    found = {layer.name: float(layer.firing_rate) for layer in fast.detach()}
    return _far_rates(workload, train, found)


def _peer_rates(workload: Workload, peer: str, train: bool) -> list[str]:
    """The firing rates of a peer's eager network in the precision that is measured."""
    from rmploss_bench.peers import PEERS, peer_network

    kit, net = peer_network(peer if peer in PEERS else peer.partition("-")[0], workload)
    found: dict[str, float] = {}
    for name, neurons in net.spiking.items():

        def note(_: object, __: object, spikes: Tensor, name: str = name) -> None:
            found[name] = float(spikes.float().mean())

        neurons.register_forward_hook(note)
    kit.reset(net.train(train))
    with torch.no_grad(), autocast(workload.conditions):
        net(workload.images)
    return _far_rates(workload, train, found)


def _far_rates(workload: Workload, train: bool, found: dict[str, float]) -> list[str]:
    """The layers whose firing rates differ from those of the reference in float32, in words."""
    with ops.use_backend("reference"), membrane_stats() as plain:
        _forward(workload, train)
    reds = []
    for layer in plain.detach():
        rate = float(layer.firing_rate)
        difference = abs(found[layer.name] - rate)
        # Chance: four standard deviations of the difference between two samples of this many
        # independent neurons.
        chance = 4 * math.sqrt(2 * max(rate * (1 - rate), 0.0) / layer.elements)
        if not difference <= RATE + chance:
            reds.append(f"the firing rate of {layer.name} differs by {difference:.3f}")
    return reds
