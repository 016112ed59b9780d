"""Optimizers and learning-rate schedules, as functions of where training stands.

The learning rate is computed from (epoch, batch), never carried: a resumed run needs no scheduler.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from rmploss.recipes import Use
from rmploss.registry import Registry

WARM_UP = 0.3
"""The share of the steps over which "onecycle" rises."""


def sgd(groups: Iterable[Any], *, momentum: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent, the paper's (section 5.1)."""
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov)


def adam(
    groups: Iterable[Any], *, beta1: float = 0.9, beta2: float = 0.999, amsgrad: bool = False
) -> Optimizer:
    """Adam (Kingma and Ba 2015)."""
    return torch.optim.Adam(groups, lr=0.0, betas=(beta1, beta2), amsgrad=amsgrad)


def adamw(groups: Iterable[Any], *, beta1: float = 0.9, beta2: float = 0.999) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=0.0, betas=(beta1, beta2))


OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry(
    "optimizer",
    {
        "sgd": "rmploss.engine.optimizers:sgd",
        "adam": "rmploss.engine.optimizers:adam",
        "adamw": "rmploss.engine.optimizers:adamw",
    },
)


def groups_of(
    net: nn.Module, weight_decay: float, on: Literal["all", "weights"]
) -> list[dict[str, Any]]:
    """The parameter groups: weight decay on all parameters, or not on gains, offsets, biases."""
    weights = [p for p in net.parameters() if p.ndim > 1 or on == "all"]
    others = [p for p in net.parameters() if not (p.ndim > 1 or on == "all")]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return groups


@dataclass(frozen=True)
class Moment:
    """Where training stands: epoch, of completed ones, 0 to epochs - 1; batch, done in this one."""

    epoch: int
    epochs: int
    batch: int
    batches: int

    @property
    def step(self) -> int:
        """Completed steps."""
        return self.epoch * self.batches + self.batch


def cosine(at: Moment, *, period: int | None = None, warm_up: int = 0) -> float:
    """(1 + cos(pi epoch/period)) / 2, constant within an epoch, falling to 0 over all epochs.

    period: epochs until 0 is reached; after it the rate rises again, as PLIF's and Diet-SNN's do.
    warm_up: steps over which the factor grows from 0 to its value first.
    """
    factor = (1 + math.cos(math.pi * at.epoch / (period or at.epochs))) / 2
    return factor * min(1.0, (at.step + 1) / warm_up) if warm_up else factor


def onecycle(at: Moment) -> float:
    """From 1/25 to 1 by half a cosine over the first `WARM_UP` of all steps, then to 0."""
    done = at.step / (at.epochs * at.batches)
    if done < WARM_UP:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / WARM_UP)) / 2
    return (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2


def stairs(at: Moment, *, every: int = 35, factor: float = 0.1) -> float:
    """Times `factor` every so many epochs (STBP: 0.1 every 35)."""
    return factor ** (at.epoch // every)


def constant(at: Moment) -> float:
    """1 throughout (TSSL-BP)."""
    return 1.0


LR_SCHEDULES: Registry[Callable[..., float]] = Registry(
    "learning-rate schedule",
    {
        "cosine": "rmploss.engine.optimizers:cosine",
        "onecycle": "rmploss.engine.optimizers:onecycle",
        "stairs": "rmploss.engine.optimizers:stairs",
        "constant": "rmploss.engine.optimizers:constant",
    },
)
"""What the peak learning rate is multiplied by, as a function of where training stands."""


def learning_rate(peak: float, schedule: Use, at: Moment) -> float:
    """The learning rate of one step."""
    return peak * LR_SCHEDULES.make(schedule.name, at, **schedule.options)
