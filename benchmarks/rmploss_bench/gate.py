"""The gate: a contestant that does not compute the reference's network gets no figure.

Spikes make a network chaotic: a membrane that rounds to the other side of the threshold changes
every later spike, and two correct float32 networks may end with different logits. So the gate makes
three comparisons:

    float64             rounding is so small that no membrane changes sides: the logits of every
                        contestant equal those of our reference; for the contestants of rmploss,
                        the loss and all gradients do too
    each operation      rmploss in float32: every operation that the network calls is compared on
                        its actual input with the reference in float32 and float64 (`gate_ops`)
    each layer          rmploss in float32: every layer's firing rate is close to the reference's

The float64 comparison takes `IMAGES` images of the batch, the others take the whole batch.
"""

import copy
import math
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace

import torch
from torch import Tensor

from rmploss import ops
from rmploss.lifecycle import fold
from rmploss.stats import membrane_stats
from rmploss_bench.blueprint import Neurons, layers
from rmploss_bench.contestants import CONTESTANTS, NetRunner
from rmploss_bench.gate_ops import judged
from rmploss_bench.workload import IMAGE, Workload

IMAGES = 8
"""Number of images of the comparison in float64, which is slow."""
RATE = 1e-2
"""Allowed difference of a layer's firing rate, on top of chance; dimensionless."""

Gate = Callable[[str], str]
"""Maps a contestant's name to "" if its gate is green, else to the reason why it is red."""


def gate(workload: Workload, *, train: bool) -> Gate:
    """The gate of a workload.

    workload: network and batch that all contestants get.
    train: True for the gate of training, False for that of evaluation.
    """
    exact = in_float64(workload)
    wanted = _outcome(exact, "rmploss-reference", train)
    with_rmp = _outcome(exact, "rmploss+rmp", train, "reference") if train else wanted

    def judge(name: str) -> str:
        if name == "dense-bound":
            return ""  # it computes no network that could be compared
        ours = name.startswith("rmploss")
        reds = _differences(
            _outcome(exact, name, train), with_rmp if "+" in name else wanted, workload
        )
        if ours and name != "rmploss-reference":
            reds += _single_precision(workload, train, moments="+" in name)
        return "; ".join(reds)

    return judge


def in_float64(workload: Workload) -> Workload:
    """The workload in float64, with the first `IMAGES` images of its batch."""
    net = copy.deepcopy(workload.net).double()
    images, labels = workload.images[:IMAGES].double(), workload.labels[:IMAGES]
    conditions = workload.conditions.but(batch=len(labels))
    return replace(workload, conditions=conditions, net=net, images=images, labels=labels)


Outcome = tuple[Tensor, Tensor | None, Tensor | None]
"""Logits; then, for rmploss in training, the loss and all gradients as one vector, else None."""


def _outcome(workload: Workload, name: str, train: bool, backend: str = "") -> Outcome:
    runner = CONTESTANTS[name](workload, train)
    assert isinstance(runner, NetRunner)
    with ops.use_backend(backend) if backend else torch.enable_grad():
        logits = runner.logits()
        if not (train and name.startswith("rmploss")):
            return logits, None, None
        with runner.around():
            loss = runner.loss()
            loss.backward()
    parts = [torch.zeros(1) if p.grad is None else p.grad for p in runner.net.parameters()]
    return logits, loss.detach(), torch.cat([part.flatten() for part in parts])


def _differences(got: Outcome, wanted: Outcome, workload: Workload) -> list[str]:
    bound = _rounding(workload)
    reds = []
    names = ("logits", "loss", "gradients")
    for name, a, b in zip(names, got, wanted, strict=True):
        if a is None or b is None:
            continue
        deviation = float((a - b).norm() / b.norm())
        if not deviation <= bound:
            reds.append(f"{name} differ by {deviation:.1e} in float64 (bound {bound:.1e})")
    return reds


def _rounding(workload: Workload) -> float:
    """Bound of the relative rounding error in float64: eps x longest sum x depth, dimensionless.

    The longest sum is that of a norm's statistics in the first layer: T*B*H*W terms.
    """
    conditions = workload.conditions
    shapes = layers(workload.blueprint, workload.state, IMAGE)
    depth = sum(isinstance(layer.part, Neurons) for layer in shapes)
    longest = conditions.T * min(conditions.batch, IMAGES) * IMAGE[1] * IMAGE[2]
    return torch.finfo(torch.float64).eps * longest * depth


def _single_precision(workload: Workload, train: bool, *, moments: bool) -> list[str]:
    """The errors of our float32 operations and of the firing rates, in words."""
    reds: list[str] = []
    with judged(reds, train=train) as calls, membrane_stats() if moments else nullcontext():
        _forward(workload, train)
    if not calls():
        reds.append("the network called no operation that could be judged")
    return [*dict.fromkeys(reds), *_rates(workload, train)]


def _forward(workload: Workload, train: bool) -> None:
    net = copy.deepcopy(workload.net)
    net = net.train() if train else fold(net)
    with torch.set_grad_enabled(train):
        net(workload.images)


def _rates(workload: Workload, train: bool) -> list[str]:
    with membrane_stats() as fast:
        _forward(workload, train)
    with ops.use_backend("reference"), membrane_stats() as plain:
        _forward(workload, train)
    reds = []
    for a, b in zip(fast.detach(), plain.detach(), strict=True):
        rate, difference = float(b.firing_rate), abs(float(a.firing_rate) - float(b.firing_rate))
        # Chance: four standard deviations of the difference between two samples of this many
        # independent neurons.
        chance = 4 * math.sqrt(2 * max(rate * (1 - rate), 0.0) / b.elements)
        if not difference <= RATE + chance:
            reds.append(f"the firing rate of {b.name} differs by {difference:.3f}")
    return reds
