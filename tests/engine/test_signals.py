"""Signals sent to a process that checks `Stop` between steps, as training does."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from rmploss.data._base import Key
from rmploss.data._loaders import Loaders
from rmploss.engine import signals
from rmploss.engine.batches import RankBatches
from rmploss.engine.distributed import World
from rmploss.engine.signals import Stop
from tests.engine.runs import TINY

SIGNALS = [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP]

# The file itself is run, because the package would import torch first.
HEAD = """
    import runpy, signal, sys, time
    Stop = runpy.run_path(sys.argv[1])["Stop"]
"""


def start(body: str) -> subprocess.Popen[str]:
    """A Python process that has imported `Stop` and is ready."""
    script = textwrap.dedent(HEAD) + textwrap.dedent(body)
    process = subprocess.Popen(
        [sys.executable, "-c", script, signals.__file__],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_lets_the_step_finish(number: signal.Signals) -> None:
    process = start("""
        with Stop() as stop:
            print("ready", flush=True)
            while not stop.requested:
                time.sleep(0.01)
            print(stop.signal.name, flush=True)
        sys.exit(75)
    """)
    process.send_signal(number)
    output, _ = process.communicate(timeout=20)
    assert (output, process.returncode) == (f"{number.name}\n", 75)


@pytest.mark.parametrize("second", SIGNALS)
def test_the_second_signal_ends_the_process(second: signal.Signals) -> None:
    process = start("""
        with Stop() as stop:
            print("ready", flush=True)
            while not stop.requested:
                time.sleep(0.01)
            print("noted", flush=True)
            time.sleep(600)  # A step that does not end.
    """)
    process.send_signal(signal.SIGTERM)
    assert process.stdout
    assert process.stdout.readline() == "noted\n"
    process.send_signal(second)
    process.communicate(timeout=20)
    assert process.returncode == -second  # A shell calls it 128 + its number.


def test_signals_that_arrive_together_are_one() -> None:
    """As SIGHUP and SIGTERM of a closed terminal: blocked, sent and let in at once."""
    process = start("""
        with Stop() as stop:
            together = {signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP}
            signal.pthread_sigmask(signal.SIG_BLOCK, together)
            print("ready", flush=True)
            for number in together:
                signal.raise_signal(number)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, together)
            print(stop.signal.name, flush=True)
            signal.raise_signal(signal.SIGUSR1)
    """)
    assert process.stdout
    output = process.stdout.read()  # The first line may have come with "ready".
    _, errors = process.communicate(timeout=20)
    assert (output, errors, process.returncode) == ("SIGHUP\n", "", -signal.SIGUSR1)


class Slow:
    """Four samples, of which none is held in memory."""

    labels = torch.zeros(4, dtype=torch.int64)

    def __len__(self) -> int:
        return 4

    def __getitem__(self, key: Key) -> tuple[torch.Tensor, int]:
        time.sleep(0.2)  # The loader is still there when its first batch has come.
        return torch.zeros(1, 2, 2), 0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the mask")
def test_loaders_block_the_signals_that_stop_a_run() -> None:
    """The whole group gets them; a loader that died would end the run within a step."""
    batches = RankBatches(TINY.but(batch_size=1), World(), 1).train(Slow(), epoch=0)
    next(batches)
    assert isinstance(batches, Loaders)
    (loader,) = batches.processes
    status = Path(f"/proc/{loader.pid}/status").read_text()
    mask = int(status.partition("SigBlk:")[2].split()[0], 16)
    assert [number for number in SIGNALS if not mask >> (number - 1) & 1] == []
    assert not {*SIGNALS} & signal.pthread_sigmask(signal.SIG_BLOCK, [])


@pytest.mark.parametrize("requested", [False, True])
def test_handlers_are_given_back(requested: bool) -> None:
    def mine(*_: object) -> None: ...

    previous = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        signal.signal(signal.SIGUSR1, mine)
        before = [signal.getsignal(number) for number in SIGNALS]
        with suppress(KeyError), Stop() as stop:
            assert not set(before) & {signal.getsignal(number) for number in SIGNALS}
            if requested:
                os.kill(os.getpid(), signal.SIGUSR1)
            assert stop.requested == requested
            raise KeyError
        assert [signal.getsignal(number) for number in SIGNALS] == before
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def test_an_ignored_signal_stays_ignored() -> None:
    """As SIGHUP is under nohup."""
    previous = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Stop() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.requested
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, previous)


def test_outside_the_main_thread_nothing_changes() -> None:
    seen: list[object] = []

    def work() -> None:
        before = signal.getsignal(signal.SIGTERM)
        with Stop() as stop:
            seen.extend([signal.getsignal(signal.SIGTERM) is before, stop.requested])

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [True, False]
