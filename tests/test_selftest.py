"""The self-test of a bug report: it passes here, and it notices a wrong gradient."""

from typing import Any

import pytest
import torch

from rmploss import ops, selftest
from rmploss.ops import reference


def test_it_passes() -> None:
    deviation, bound = selftest.selftest()
    assert 0 < deviation < bound


def test_it_notices_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def detached(*arguments: Any, **options: Any) -> Any:
        return reference.lif(*arguments, **{**options, "detach_reset": True})

    monkeypatch.setattr(selftest, "lif", detached)
    deviation, bound = selftest.selftest()
    assert deviation > bound


def test_the_backends_agree_and_a_wrong_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    deviation, bound = selftest.agreement(device)
    assert deviation <= bound
    right = reference.norm_lif

    def wrong(*arguments: Any, **options: Any) -> Any:
        return right(*arguments, **{**options, "decay": 0.25 + 1e-9})

    monkeypatch.setattr(reference, "norm_lif", wrong)
    if ops.pick("auto", device) != "reference":
        assert selftest.agreement(device)[0] > bound
