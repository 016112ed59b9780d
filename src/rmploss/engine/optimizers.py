"""Optimizers and learning-rate schedules, as functions of where training stands.

The learning rate is computed from (epoch, batch), never carried: a resumed run needs no scheduler.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import nn
from torch.optim import Optimizer

from rmploss.tables import Table

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


OPTIMIZERS: Table[Callable[..., Optimizer]] = Table(
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


def learning_rate(
    peak: float,
    schedule: Literal["cosine", "onecycle"],
    *,
    epoch: int,
    epochs: int,
    batch: int,
    batches: int,
) -> float:
    """The learning rate of one step.

    epoch: completed epochs, 0 to epochs - 1; batch: done in this epoch. "cosine" is
    peak (1 + cos(pi epoch/epochs)) / 2, constant within an epoch; "onecycle" rises from peak/25 to
    the peak by half a cosine over the first `WARM_UP` of all steps, then falls to 0 by another.
    """
    if schedule == "cosine":
        return peak * (1 + math.cos(math.pi * epoch / epochs)) / 2
    done = (epoch * batches + batch) / (epochs * batches)
    if done < WARM_UP:
        return peak * (1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * done / WARM_UP)) / 2)
    return peak * (1 + math.cos(math.pi * (done - WARM_UP) / (1 - WARM_UP))) / 2
