"""Poisoned memory for every test, and each instruction set of the native kernels.

Memory that an operation asks for and does not fill is NaN here, not a lucky zero.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from rmploss.ops import native


def poison(x: Tensor) -> Tensor:
    """NaN for floating-point memory, the largest value for whole numbers, True for booleans."""
    if x.is_floating_point() or x.is_complex():
        return x.fill_(float("nan"))
    return x.fill_(True if x.dtype == torch.bool else torch.iinfo(x.dtype).max)


@pytest.fixture(autouse=True)
def poisoned_memory(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`torch.empty`, `empty_like`, `empty_strided`, `new_empty` and native memory are poisoned."""
    owners: list[tuple[Any, str]] = [
        (torch, "empty"),
        (torch, "empty_like"),
        (torch, "empty_strided"),
        (Tensor, "new_empty"),
    ]
    for owner, name in owners:
        monkeypatch.setattr(owner, name, _poisoned(getattr(owner, name)))
    if not native.MISSING:
        native.poison(True)
    yield
    if not native.MISSING:
        native.poison(False)


@pytest.fixture(params=native.instruction_sets() or ["missing"])
def instruction_set(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this machine runs."""
    before = native.instruction_set()
    native.use_instruction_set(request.param)
    yield request.param
    native.use_instruction_set(before)


def _poisoned(allocate: Any) -> Any:
    def empty(*arguments: Any, **options: Any) -> Tensor:
        with torch.no_grad():
            return poison(allocate(*arguments, **options))

    return empty
