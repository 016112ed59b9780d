"""Fixtures of all tests: one thread, and the folder of the real data where it exists."""

import os
import signal
from pathlib import Path

import pytest
import torch
from reliability import is_fault_test

from rmploss import store


@pytest.hookimpl(tryfirst=True)  # before `-m` chooses
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests of faults, which docs/reliability.md counts; skip what cannot or need not run.

    That is what needs an absent GPU, and what is slow, unless `-m` names it.
    """
    has_gpu = torch.cuda.is_available()
    slow = "slow" in config.option.markexpr
    for item in items:
        if is_fault_test(item.nodeid.partition("[")[0]):
            item.add_marker("faults")
        if item.get_closest_marker("gpu") and not has_gpu:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))
        if item.get_closest_marker("slow") and not slow:
            item.add_marker(pytest.mark.skip(reason="takes minutes in all: pytest -m slow"))


@pytest.fixture(scope="session", autouse=True)
def the_same_torch_everywhere() -> None:
    """One thread, since sums depend on their number; every warning in every order of tests."""
    torch.set_num_threads(1)
    # A warning that torch gives once per process would be an error in one test or another.
    torch.set_warn_always(True)


@pytest.fixture(scope="session", autouse=True)
def no_pause_between_tries() -> None:
    """The second try of a write follows at once."""
    store.PAUSE_S = 0.0


@pytest.fixture(scope="session", autouse=True)
def no_signal_is_ignored() -> None:
    """As in a terminal: under nohup and in a script's background, children would ignore signals."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def real_data_root() -> Path:
    """The folder of the real data sets; the test is skipped, visibly, without it."""
    root = os.environ.get("RMPLOSS_DATA")
    if not root:
        pytest.skip("needs the real data: set RMPLOSS_DATA to the folder that holds it")
    if not Path(root).is_dir():
        pytest.fail(f"RMPLOSS_DATA={root} is not a folder")
    return Path(root)
