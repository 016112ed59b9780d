"""The time that is left, and processes that end with it."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

KILL_S = 20.0
"""Seconds between the request to stop and the kill."""
_PR_SET_PDEATHSIG = 1
"""Of Linux' prctl: the signal that a process gets when its parent dies."""


@dataclass(frozen=True)
class Clock:
    """The end of a call.

    end: on `time.monotonic`.
    """

    end: float

    def left(self) -> float:
        """Seconds until the end; negative after it."""
        return self.end - time.monotonic()


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    code: its exit code, negative for a signal.
    stopped: True if it was asked to stop because its time was over.
    output: what it wrote, standard error included.
    seconds: that it took.
    """

    code: int
    stopped: bool
    output: str
    seconds: float


def run(
    words: Sequence[str],
    *,
    seconds: float,
    kill_after: float = KILL_S,
    folder: Path | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> Ended:
    """Run a process for at most some seconds, then SIGTERM, then SIGKILL to it and its children.

    words: its command line.
    seconds: until it is asked to stop.
    kill_after: seconds from then until it is killed.
    folder: its working folder; None: this one's.
    show: is called with every line that it writes.

    The process gets SIGTERM, too, if this one dies.
    """
    began = time.monotonic()
    process = subprocess.Popen(
        words,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        cwd=folder,
        start_new_session=True,
        preexec_fn=_end_with_parent,
    )
    lines: list[str] = []

    def read() -> None:
        assert process.stdout
        for line in process.stdout:
            lines.append(line)
            show(line.rstrip("\n"))

    reader = threading.Thread(target=read, daemon=True)
    reader.start()
    stopped = False
    try:
        process.wait(max(seconds, 0.0))
    except subprocess.TimeoutExpired:
        stopped = True
    finally:
        if process.poll() is None:
            _stop(process, kill_after)
        reader.join(5)
        assert process.stdout
        process.stdout.close()
    return Ended(process.returncode, stopped, "".join(lines), time.monotonic() - began)


def _stop(process: "subprocess.Popen[str]", kill_after: float) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(kill_after)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _end_with_parent() -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
