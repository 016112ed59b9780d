"""The gate: no figure of a contestant that computes something else.

Spikes make a network chaotic: a membrane that rounds to the other side of the threshold changes
everything after it, and two correct float32 networks may end with unlike logits. So the gate is

    in float64          where no membrane comes that near: the contestant's logits are those of our
                        reference; for our own also loss and all gradients
    operation by        ours, in float32: every operation that the network calls, on the input that
    operation           it gets there, against the reference and against float64 (`gate_ops`)
    layer by layer      ours, in float32: the firing rate of every layer is that of the reference

The first takes `IMAGES` images of the batch; the others all of it.
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
from rmploss_bench.case import IMAGE, Case
from rmploss_bench.contestants import CONTESTANTS, NetRunner
from rmploss_bench.gate_ops import judged
from rmploss_bench.plan import Neurons, layers

IMAGES = 8
"""Images of the comparison in float64, which is slow."""
RATE = 1e-2
"""By how much a layer's firing rate may differ, on top of chance."""

Gate = Callable[[str], str]
"""Contestant name -> "" if its gate is green, else why it is red."""


def gate(case: Case, *, train: bool) -> Gate:
    """The gate of a case, for training or for evaluation."""
    exact = in_float64(case)
    wanted = _outcome(exact, "rmploss-reference", train)
    with_rmp = _outcome(exact, "rmploss+rmp", train, "reference") if train else wanted

    def judge(name: str) -> str:
        if name == "dense-bound":
            return ""  # it computes no network: there is nothing to agree with
        ours = name.startswith("rmploss")
        reds = _differences(_outcome(exact, name, train), with_rmp if "+" in name else wanted, case)
        if ours and name != "rmploss-reference":
            reds += _single_precision(case, train, moments="+" in name)
        return "; ".join(reds)

    return judge


def in_float64(case: Case) -> Case:
    """The case in double precision, with the first images of its batch."""
    net = copy.deepcopy(case.net).double()
    images, labels = case.images[:IMAGES].double(), case.labels[:IMAGES]
    made = case.setting.but(batch=len(labels))
    return replace(case, setting=made, net=net, images=images, labels=labels)


Outcome = tuple[Tensor, Tensor | None, Tensor | None]
"""Logits, and for our own contestants in training loss and gradients as one vector."""


def _outcome(case: Case, name: str, train: bool, provider: str = "") -> Outcome:
    runner = CONTESTANTS[name](case, train)
    assert isinstance(runner, NetRunner)
    with ops.use_backend(provider) if provider else torch.enable_grad():
        logits = runner.logits()
        if not (train and name.startswith("rmploss")):
            return logits, None, None
        with runner.around():
            loss = runner.loss()
            loss.backward()
    parts = [torch.zeros(1) if p.grad is None else p.grad for p in runner.net.parameters()]
    return logits, loss.detach(), torch.cat([part.flatten() for part in parts])


def _differences(got: Outcome, wanted: Outcome, case: Case) -> list[str]:
    bound = _rounding(case)
    reds = []
    names = ("logits", "loss", "gradients")
    for name, a, b in zip(names, got, wanted, strict=True):
        if a is None or b is None:
            continue
        deviation = float((a - b).norm() / b.norm())
        if not deviation <= bound:
            reds.append(f"{name} differ by {deviation:.1e} in float64 (bound {bound:.1e})")
    return reds


def _rounding(case: Case) -> float:
    """What roundings may add up to, relative: eps times the longest sum times the depth.

    The longest sum is the one of a norm's statistics, T*B*H*W of the first layer.
    """
    made = case.setting
    shapes = layers(case.parts, case.state, IMAGE)
    depth = sum(isinstance(layer.part, Neurons) for layer in shapes)
    longest = made.T * min(made.batch, IMAGES) * IMAGE[1] * IMAGE[2]
    return torch.finfo(torch.float64).eps * longest * depth


def _single_precision(case: Case, train: bool, *, moments: bool) -> list[str]:
    """What is wrong with our float32 operations, and with the rates that they come to."""
    reds: list[str] = []
    with judged(reds, train=train) as calls, membrane_stats() if moments else nullcontext():
        _forward(case, train)
    if not calls():
        reds.append("the network called no operation that could be judged")
    return [*dict.fromkeys(reds), *_rates(case, train)]


def _forward(case: Case, train: bool) -> None:
    net = copy.deepcopy(case.net)
    net = net.train() if train else fold(net)
    with torch.set_grad_enabled(train):
        net(case.images)


def _rates(case: Case, train: bool) -> list[str]:
    with membrane_stats() as fast:
        _forward(case, train)
    with ops.use_backend("reference"), membrane_stats() as plain:
        _forward(case, train)
    reds = []
    for a, b in zip(fast.detach(), plain.detach(), strict=True):
        rate, difference = float(b.firing_rate), abs(float(a.firing_rate) - float(b.firing_rate))
        # Chance: two samples of as many independent neurons, four standard deviations apart.
        chance = 4 * math.sqrt(2 * max(rate * (1 - rate), 0.0) / b.elements)
        if not difference <= RATE + chance:
            reds.append(f"the firing rate of {b.name} differs by {difference:.3f}")
    return reds
