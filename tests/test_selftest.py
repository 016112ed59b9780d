"""The self-test for bug reports: it passes here, and fails for a wrong gradient."""

from typing import Any

import pytest
import torch

from rmploss import ops, selftest
from rmploss.ops import native
from rmploss.ops.lif import reference
from rmploss.ops.spike_conv2d import reference as convolution


def test_it_passes() -> None:
    deviation, bound = selftest.selftest()
    assert 0 < deviation < bound


def test_it_notices_a_wrong_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    def detached(*arguments: Any, **options: Any) -> Any:
        return reference.lif(*arguments, **{**options, "detach_reset": True})

    monkeypatch.setattr(selftest, "lif", detached)
    deviation, bound = selftest.selftest()
    assert deviation > bound


@pytest.mark.skipif(native.MISSING is not None, reason=str(native.MISSING))
def test_the_backends_agree_and_a_wrong_one_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    checks = selftest.agreement(device)
    assert [check.what for check in checks] == ["neurons", "convolution"]
    assert all(0 < check.deviation <= check.bound for check in checks)
    neurons, convolve = reference.norm_lif, convolution.spike_conv2d

    def decayed(*arguments: Any, **options: Any) -> Any:
        return neurons(*arguments, **{**options, "decay": 0.25 + 1e-9})

    def shifted(*arguments: Any, **options: Any) -> Any:
        return convolve(*arguments, **options) * 1.02

    monkeypatch.setattr(reference, "norm_lif", decayed)
    monkeypatch.setattr(convolution, "spike_conv2d", shifted)
    assert not any(check.ok for check in selftest.agreement(device))


def test_the_reference_has_nothing_to_be_compared_with() -> None:
    with ops.use_backend("reference"):
        assert selftest.agreement(torch.device("cpu")) == []
