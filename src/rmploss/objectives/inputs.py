"""The inputs of losses, checked by shape and type: nothing is read from a GPU."""

from typing import Any

import torch
from torch import Tensor

from rmploss.errors import Problem, UserError

LABELS = (torch.int64, torch.uint8)
"""The types of labels."""


def require_logits(logits: Any, labels: Any) -> None:
    """Raise `UserError` unless logits are `[B, K]` and labels class numbers `[B]`."""
    problems = _number_problems("logits", logits, 2, "[B, K]: the outputs, read out over time")
    raise_for(problems or _label_problems(labels, logits.shape[0]))


def require_outputs(outputs: Any, labels: Any) -> None:
    """Raise `UserError` unless outputs are `[T, B, K]` and labels class numbers `[B]`."""
    what = "[T, B, K], time first: those of every step, net(x, over_time=True)"
    problems = _number_problems("outputs", outputs, 3, what)
    raise_for(problems or _label_problems(labels, outputs.shape[1]))


def is_soft(labels: Any, logits: Any) -> bool:
    """True for labels that are probabilities of the classes, `[B, K]` as the logits."""
    given = isinstance(labels, Tensor) and isinstance(logits, Tensor)
    return given and labels.is_floating_point() and labels.shape == logits.shape


def raise_for(problems: list[Problem]) -> None:
    """Raise `UserError` with the problems, if there are any."""
    if problems:
        raise UserError("no loss of these outputs and labels", problems)


def _number_problems(name: str, x: Any, ndim: int, what: str) -> list[Problem]:
    if isinstance(x, Tensor) and x.ndim == ndim and x.is_floating_point() and x.numel():
        return []
    return [Problem(f"{name} = {_shown(x)}", f"must be {what}")]


def _label_problems(labels: Any, batch: int) -> list[Problem]:
    if isinstance(labels, Tensor) and labels.dtype in LABELS and labels.shape == (batch,):
        return []
    fix = "labels.long()" if isinstance(labels, Tensor) and labels.shape == (batch,) else ""
    what = f"must be class numbers, int64 [B] = [{batch}]"
    return [Problem(f"labels = {_shown(labels)}", what, fix)]


def _shown(x: Any) -> str:
    return f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
