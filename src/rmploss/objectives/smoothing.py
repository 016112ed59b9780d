"""Label smoothing (Szegedy et al., CVPR 2016, section 7): part of each label goes to all classes.

    y_k = (1 - smoothing) 1[k = label] + smoothing / K

K classes, smoothing in [0, 1), dimensionless. The cross-entropy is linear in y, so that it becomes
(1 - smoothing) CE(z, label) + smoothing / K sum_k CE(z, k).
"""

import torch
from torch import Tensor

from rmploss.errors import Problem, UserError
from rmploss.objectives.inputs import told_classes


def smooth_one_hot(labels: Tensor, classes: int, smoothing: float, dtype: torch.dtype) -> Tensor:
    """y, the smoothed label of every sample, `[B, K]`.

    labels: `[B]`, from 0 to K - 1.
    classes: K.
    smoothing: in [0, 1); 0 gives the labels themselves.
    dtype: of the result.

    Raises `UserError` for a label that is no class; on a GPU the device asserts it.
    """
    # `F.one_hot` would read the labels on the host; a scatter checks them where they are.
    zeros = torch.zeros(len(labels), classes, dtype=dtype, device=labels.device)
    with told_classes(labels, classes):
        chosen = zeros.scatter(1, labels.long()[:, None], 1)
    return chosen * (1 - smoothing) + smoothing / classes if smoothing else chosen


def smoothing_problems(smoothing: float) -> list[Problem]:
    """The problem of a smoothing outside of [0, 1); empty if there is none."""
    if 0 <= smoothing < 1:
        return []
    return [Problem(f"smoothing = {smoothing!r}", "must lie in [0, 1)", "0.1; 0 is none")]


def require_smoothing(loss: str, smoothing: float) -> None:
    """Raise `UserError` for a smoothing outside of [0, 1); loss: its name in the message."""
    if problems := smoothing_problems(smoothing):
        raise UserError(f"bad {loss}", problems)
