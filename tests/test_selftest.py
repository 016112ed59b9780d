"""The self-test of a bug report: it passes here, and it notices a wrong gradient."""

from typing import Any

import pytest

from rmploss import selftest
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
