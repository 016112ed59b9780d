"""A gradient that has no gradient of its own, and says so.

PyTorch's `once_differentiable` says it only if the gradient that arrives depends on something.
Where it is a constant, as that of a sum, it drops the derivative of the result by the saved
tensors: a gradient penalty would lose its share without a word.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

MESSAGE = (
    b"the fused operations of rmploss have one derivative: for a second one run the reference, "
    b"with rmploss.ops.use_backend('reference')"
)


def differentiable_once(backward: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Whoever differentiates what `backward(ctx, ...)` returns gets an error."""

    @wraps(backward)
    def run(ctx: Any, *arriving: Any) -> tuple[Any, ...]:
        with torch.no_grad():
            gradients = backward(ctx, *arriving)
        if not torch.is_grad_enabled():  # without create_graph nobody can
            return gradients
        places = [i for i, g in enumerate(gradients) if isinstance(g, Tensor)]
        functions: Any = torch._C._functions  # pyright: ignore[reportAttributeAccessIssue]
        delayed = functions.DelayedError(MESSAGE, len(places))
        leaves = [gradients[i].detach().requires_grad_() for i in places]
        told = delayed(*leaves)
        found = [*gradients]
        for i, g in zip(places, told, strict=True):
            found[i] = g
        return tuple(found)

    return run
