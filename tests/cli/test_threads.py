"""Threads sleep at barriers on a busy machine, unless the user said how they wait."""

import os
import sys

import pytest

from rmploss.cli import threads


@pytest.fixture(autouse=True)
def before_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the start of a process; what is set is unset afterwards."""
    monkeypatch.delitem(sys.modules, "torch")
    for name in threads.VARIABLES:
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    monkeypatch.setattr(os, "getloadavg", lambda: (value, 0.0, 0.0), raising=False)


def test_on_a_busy_machine_threads_sleep_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, 64.0 * (os.cpu_count() or 1))
    threads.wait_asleep_if_busy()
    assert os.environ["GOMP_SPINCOUNT"] == threads.SPINS


@pytest.mark.parametrize("name", threads.VARIABLES)
def test_what_the_user_set_stays(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, 1e6)
    monkeypatch.setenv(name, "active")
    threads.wait_asleep_if_busy()
    assert {n: os.environ.get(n) for n in threads.VARIABLES if n in os.environ} == {name: "active"}


def test_an_idle_machine_and_one_without_a_load_change_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    load(monkeypatch, 0.1)
    threads.wait_asleep_if_busy()
    monkeypatch.delattr(os, "getloadavg", raising=False)
    threads.wait_asleep_if_busy()
    assert "GOMP_SPINCOUNT" not in os.environ


def test_after_torch_it_is_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, 1e6)
    monkeypatch.setitem(sys.modules, "torch", sys)
    threads.wait_asleep_if_busy()
    assert "GOMP_SPINCOUNT" not in os.environ
