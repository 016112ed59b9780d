"""Child processes of tests: they die, get signals, or are one of two ranks.

A fork server that has imported everything and computed nothing starts them: that takes tens of
milliseconds, and no child inherits a thread of the tests.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from rmploss.engine.run import RunFolder
from rmploss.errors import UserError

_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "pytest",
        "rmploss.cli.terminal",
        "rmploss.engine.train",
        "rmploss.data.digits",
        "rmploss.models.convnet",
        "torch._dynamo",  # an optimizer's first use imports it, in every child anew
    ]
)


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A child that runs `target(*arguments)`; a user's error is its exit code."""
    process = _server.Process(target=_child, args=(target, *arguments))
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """Wait for a child; its exit code, or minus the signal that killed it."""
    process.join(300)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError("the child hangs")
    assert process.exitcode is not None
    return process.exitcode


def pipe() -> tuple[Connection, Connection]:
    """The two ends of a pipe to a child."""
    return _server.Pipe()


def free_port() -> str:
    """A free port for the ranks."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def be_rank(rank: int, port: str, size: int = 2) -> None:
    """Set the environment of one of several ranks, as `torchrun` does."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=port)


def die(owner: object, name: str, when: str, call: int) -> None:
    """Let this process kill itself right before or after the given call of `owner.name`."""
    original = getattr(owner, name)
    calls = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        if (when, calls) == ("before", call):
            os.kill(os.getpid(), signal.SIGKILL)
        result = original(*arguments, **options)
        if (when, calls) == ("after", call):
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def check_sound(path: Path) -> None:
    """Assert the invariants of a finished run folder."""
    folder = RunFolder.open(path)
    steps = [record["step"] for record in folder.metrics()]
    assert steps == sorted(set(steps))
    assert (path / "result.json").is_file()
    assert (path / "membrane.json").is_file()
    assert not list(path.rglob(".tmp-*"))
    assert not list(path.rglob("*.corrupt*"))
    for name in ("metrics.jsonl", "events.jsonl"):
        assert (path / name).read_text().endswith("}\n")
    with folder.lock():  # the lock is free
        pass


def _child(target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        target(*arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
