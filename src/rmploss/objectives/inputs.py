"""The inputs of losses, checked by shape and type: nothing is read from a GPU."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from rmploss.errors import Problem, UserError

LABELS = (torch.int64, torch.uint8)
"""The types of labels."""
NEVER_IGNORED = -(2**62) - 1
"""PyTorch leaves out samples of one label, -100 unless told otherwise; this is nobody's label."""


def require_logits(logits: Any, labels: Any) -> None:
    """Raise `UserError` unless logits are `[B, K]` and labels class numbers `[B]`."""
    raise_for(_logits_problems(logits) or _label_problems(labels, logits.shape[0], logits.device))


def require_soft(logits: Any, labels: Tensor) -> None:
    """Raise `UserError` unless logits are `[B, K]`, and labels of their shape beside them.

    labels: probabilities of the classes, see `is_soft`.
    """
    raise_for(_logits_problems(logits) or _place_problems(labels, logits.device))


def require_outputs(outputs: Any, labels: Any) -> None:
    """Raise `UserError` unless outputs are `[T, B, K]` and labels class numbers `[B]`."""
    what = "[T, B, K], time first: those of every step, net(x, over_time=True)"
    problems = _number_problems("outputs", outputs, 3, what)
    raise_for(problems or _label_problems(labels, outputs.shape[1], outputs.device))


def is_soft(labels: Any, logits: Any) -> bool:
    """True for labels that are probabilities of the classes, `[B, K]` as the logits."""
    given = isinstance(labels, Tensor) and isinstance(logits, Tensor)
    return given and labels.is_floating_point() and labels.shape == logits.shape


def cross_entropy(logits: Tensor, labels: Tensor, smoothing: float = 0.0) -> Tensor:
    """CE(logits, labels), the mean over the samples, a scalar.

    logits: `[N, K]`.
    labels: `[N]`, or probabilities `[N, K]`.
    smoothing: of the labels, in [0, 1).

    Raises `UserError` for a label that is no class, -100 among them; on a GPU the device asserts
    it.
    """
    with told_classes(labels, logits.shape[1]):
        return F.cross_entropy(
            logits, labels, label_smoothing=smoothing, ignore_index=NEVER_IGNORED
        )


@contextmanager
def told_classes(labels: Tensor, classes: int) -> Iterator[None]:
    """A label that PyTorch finds out of bounds inside of the block raises `UserError`.

    labels: `[B]`, from 0 to K - 1.
    classes: K.
    """
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if "out of bounds" not in str(error):
            raise
        raise _no_class(labels, classes) from None


def _no_class(labels: Tensor, classes: int) -> UserError:
    """The error of labels `[B]` that are not all classes."""
    least, most = int(labels.min()), int(labels.max())
    what = f"not all are one of {classes} classes, 0 to {classes - 1}"
    fix = "labels - 1: they count from 0" if (least, most) == (1, classes) else ""
    return UserError("no such class", [Problem(f"labels from {least} to {most}", what, fix)])


def raise_for(problems: list[Problem]) -> None:
    """Raise `UserError` with the problems, if there are any."""
    if problems:
        raise UserError("no loss of these outputs and labels", problems)


def _logits_problems(logits: Any) -> list[Problem]:
    return _number_problems("logits", logits, 2, "[B, K]: the outputs, read out over time")


def _number_problems(name: str, x: Any, ndim: int, what: str) -> list[Problem]:
    if not (isinstance(x, Tensor) and x.ndim == ndim and x.is_floating_point() and x.numel()):
        return [Problem(f"{name} = {_shown(x)}", f"must be {what}")]
    return _layout_problems(name, x)


def _label_problems(labels: Any, batch: int, device: torch.device) -> list[Problem]:
    if isinstance(labels, Tensor) and labels.dtype in LABELS and labels.shape == (batch,):
        return _place_problems(labels, device)
    fix = "labels.long()" if isinstance(labels, Tensor) and labels.shape == (batch,) else ""
    what = f"must be class numbers, int64 [B] = [{batch}]"
    return [Problem(f"labels = {_shown(labels)}", what, fix)]


def _place_problems(labels: Tensor, device: torch.device) -> list[Problem]:
    if labels.device == device:
        return _layout_problems("labels", labels)
    what, fix = f"the outputs on {device}", "labels.to(outputs.device)"
    return [Problem(f"labels are on {labels.device}", what, fix)]


def _layout_problems(name: str, x: Tensor) -> list[Problem]:
    if x.layout is torch.strided:
        return []
    return [Problem(f"{name} = {_shown(x)}, {x.layout}", "is not dense", f"{name}.to_dense()")]


def _shown(x: Any) -> str:
    return f"{x.dtype} {list(x.shape)}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
