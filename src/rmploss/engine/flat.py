"""Many tensors of one type as one: an operation on it is one launch, whatever their number."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flat(tensors: Sequence[Tensor]) -> Tensor:
    """A copy of all elements, `[n]`.

    tensors: of one type; their layouts may differ.
    """
    return torch.cat([x.reshape(-1) for x in tensors])


def parts(x: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Views of x `[n]` in the shapes of `like`: the way back from `flat`."""
    pieces = x.split([y.numel() for y in like])
    return [piece.view(y.shape) for piece, y in zip(pieces, like, strict=True)]
