"""The precision in which a recipe's network computes, in training and in evaluation (`amp`)."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

from rmploss.recipes import Recipe

Precision = Callable[[], AbstractContextManager[object]]
"""Returns the context of a forward."""
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def precision(recipe: Recipe, device: torch.device) -> Precision:
    """The autocast of a recipe on a device; nothing for `amp = "off"`."""
    if recipe.amp == "off":
        return nullcontext
    # A cast that autocast keeps would outlive the weight in a captured step.
    return lambda: torch.autocast(device.type, TYPES[recipe.amp], cache_enabled=False)
