"""Optimizers, and learning-rate schedules as functions of the position in training.

Each step computes its learning rate from (epoch, batch), so a checkpoint holds no scheduler.
All optimizers are PyTorch's fused ones: they read the rate and `found_inf` on the device, so that
an update that must not happen does not, and neither is read on the host.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from rmploss.engine.checkpoint import Counters
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe, Use
from rmploss.registry import Registry

WARM_UP = 0.3
"""The usual share of all steps in which "onecycle" rises, dimensionless."""


def sgd(groups: Iterable[Any], *, momentum: float = 0.9, nesterov: bool = False) -> Optimizer:
    """Stochastic gradient descent, as in the paper (section 5.1)."""
    if not 0 <= momentum < 1:
        where = f"momentum = {momentum!r}"
        fix = "the paper: 0.9"
        raise UserError("bad SGD", [Problem(where, "must lie in [0, 1): else it diverges", fix)])
    return torch.optim.SGD(groups, lr=0.0, momentum=momentum, nesterov=nesterov, fused=True)


def adam(
    groups: Iterable[Any], *, beta1: float = 0.9, beta2: float = 0.999, amsgrad: bool = False
) -> Optimizer:
    """Adam (Kingma and Ba 2015)."""
    return torch.optim.Adam(
        groups, lr=0.0, betas=(float(beta1), float(beta2)), amsgrad=amsgrad, fused=True
    )


def adamw(groups: Iterable[Any], *, beta1: float = 0.9, beta2: float = 0.999) -> Optimizer:
    """AdamW (Loshchilov and Hutter 2019)."""
    return torch.optim.AdamW(groups, lr=0.0, betas=(float(beta1), float(beta2)), fused=True)


OPTIMIZERS: Registry[Callable[..., Optimizer]] = Registry(
    "optimizer",
    {
        "sgd": "rmploss.engine.optimizers:sgd",
        "adam": "rmploss.engine.optimizers:adam",
        "adamw": "rmploss.engine.optimizers:adamw",
    },
    family="optimizer",
)


def groups_of(
    net: nn.Module, weight_decay: float, on: Literal["all", "weights"]
) -> list[dict[str, Any]]:
    """The parameter groups of an optimizer; parameters without gradient are in none.

    net: the network with the parameters.
    weight_decay: its factor, dimensionless.
    on: "all" parameters decay, or only "weights": no gains, offsets and biases.
    """
    trained = [p for p in net.parameters() if p.requires_grad]
    weights = [p for p in trained if p.ndim > 1 or on == "all"]
    others = [p for p in trained if not (p.ndim > 1 or on == "all")]
    groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": weight_decay}]
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    return groups


def prepare(optimizer: Optimizer, rate: Tensor) -> None:
    """Make an optimizer ready for steps that may be skipped or captured; call it after a load, too.

    optimizer: one of `OPTIMIZERS`; one from outside gets the rate alone.
    rate: the learning rate of all groups, `[]`, on the device of the parameters.

    State that PyTorch would create in the first step is filled with zeros: a first step that is
    skipped would leave it uninitialized. It gets the memory layout of its parameter: the fused
    kernels pair elements by their place in memory.
    """
    names: tuple[str, ...] = ()
    for group in optimizer.param_groups:
        group["lr"] = rate
        if isinstance(optimizer, torch.optim.SGD):
            names = ("momentum_buffer",) if group["momentum"] else ()
        elif isinstance(optimizer, torch.optim.Adam):  # AdamW is one
            names = ("exp_avg", "exp_avg_sq", *(("max_exp_avg_sq",) * group["amsgrad"]))
            group["capturable"] = rate.device.type == "cuda"  # which the CPU refuses
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            if isinstance(optimizer, torch.optim.Adam):
                state.setdefault("step", torch.zeros((), device=parameter.device))
            for name in names:
                laid_out = torch.zeros_like(parameter, memory_format=torch.preserve_format)
                found = state.get(name)
                state[name] = laid_out if found is None else laid_out.copy_(found)


@dataclass(frozen=True)
class Position:
    """The position in training before an optimizer step, and its end.

    epoch: completed epochs, 0 to epochs - 1.
    epochs: the number of epochs.
    batch: completed batches of this epoch, 0 to batches - 1.
    batches: the number of batches of an epoch.
    """

    epoch: int
    epochs: int
    batch: int
    batches: int

    @property
    def step(self) -> int:
        """Completed optimizer steps."""
        return self.epoch * self.batches + self.batch


def cosine(at: Position, *, period: int | None = None, warm_up: int = 0) -> float:
    """(1 + cos(pi epoch/period)) / 2, constant within an epoch.

    period: the epoch with factor 0; later epochs rise again (PLIF, Diet-SNN). None: `epochs`.
    warm_up: the number of first steps in which the factor grows linearly from 0.

    Raises `UserError`.
    """
    problems = []
    if period is not None and period < 1:
        problems.append(Problem(f"period = {period!r}", "must be at least 1", "none for epochs"))
    if warm_up < 0:
        problems.append(Problem(f"warm_up = {warm_up!r}", "must be at least 0"))
    _raise_for("cosine", problems)
    factor = (1 + math.cos(math.pi * at.epoch / (period or at.epochs))) / 2
    return factor * min(1.0, (at.step + 1) / warm_up) if warm_up else factor


def onecycle(
    at: Position,
    *,
    warm_up: float = WARM_UP,
    initial: float = 1 / 25,
    final: float = 0.0,
    rise: Literal["cosine", "linear"] = "cosine",
) -> float:
    """From `initial` to 1 over the first share of all steps, then by half a cosine to `final`.

    warm_up: the share of the steps that rise, in [0, 1).
    initial: the factor of the first step, in [0, 1].
    final: the factor that the last step almost reaches, in [0, 1].
    rise: by half a cosine, or "linear".

    Raises `UserError`.
    """
    _require_shares(warm_up, initial, final)
    done = at.step / (at.epochs * at.batches)
    if done < warm_up:
        share = done / warm_up
        risen = share if rise == "linear" else (1 - math.cos(math.pi * share)) / 2
        return initial + (1 - initial) * risen
    left = (1 + math.cos(math.pi * (done - warm_up) / (1 - warm_up))) / 2
    return final + (1 - final) * left


def _require_shares(warm_up: float, initial: float, final: float) -> None:
    problems = [
        Problem(f"{name} = {value!r}", "must lie in [0, 1]")
        for name, value in (("initial", initial), ("final", final))
        if not 0 <= value <= 1
    ]
    if not 0 <= warm_up < 1:
        problems.append(Problem(f"warm_up = {warm_up!r}", "must lie in [0, 1)", f"{WARM_UP}"))
    _raise_for("one-cycle", problems)


def _raise_for(schedule: str, problems: list[Problem]) -> None:
    if problems:
        raise UserError(f"bad {schedule} schedule", problems)


def stairs(at: Position, *, every: int = 35, factor: float = 0.1) -> float:
    """factor^floor(epoch / every): STBP multiplies by 0.1 every 35 epochs.

    every: the epochs of a stair, at least 1.
    factor: from one stair to the next, in (0, 1].

    Raises `UserError`.
    """
    problems = []
    if every < 1:
        problems.append(Problem(f"every = {every!r}", "must be at least 1", "35"))
    if not 0 < factor <= 1:
        problems.append(Problem(f"factor = {factor!r}", "must lie in (0, 1]", "0.1"))
    _raise_for("stairs", problems)
    return factor ** (at.epoch // every)


def constant(at: Position) -> float:
    """1 at every position (TSSL-BP)."""
    return 1.0


LR_SCHEDULES: Registry[Callable[..., float]] = Registry(
    "learning-rate schedule",
    {
        "cosine": "rmploss.engine.optimizers:cosine",
        "onecycle": "rmploss.engine.optimizers:onecycle",
        "stairs": "rmploss.engine.optimizers:stairs",
        "constant": "rmploss.engine.optimizers:constant",
    },
    family="lr_schedule",
)
"""The factor of the peak learning rate, dimensionless, as a function of the position."""


def learning_rate(peak: float, schedule: Use, at: Position) -> float:
    """The learning rate of one step.

    peak: the largest learning rate.
    schedule: an entry of `LR_SCHEDULES` with its options.
    at: the position of the step.
    """
    return peak * LR_SCHEDULES.make(schedule.name, at, **schedule.options)


def rate_at(recipe: Recipe, at: Counters, batches: int) -> float:
    """The learning rate of the next step of a recipe.

    at: how far training has come.
    batches: the number of batches of an epoch.
    """
    position = Position(at.epoch, recipe.epochs, at.batch, batches)
    return learning_rate(recipe.lr, recipe.lr_schedule, position)
