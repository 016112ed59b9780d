"""What the engine's tests train: a recipe of a second, here or in a process that is made to die.

Children come from a fork server that has imported everything and computed nothing: a fresh one
costs tens of milliseconds, and none inherits a thread of the tests.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable
from contextlib import ExitStack
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from rmploss import recipes
from rmploss.engine import checkpoint, run
from rmploss.engine.run import RunFolder, recipe_hash
from rmploss.engine.train import Setting
from rmploss.errors import UserError
from rmploss.recipes import Recipe

CPU = Setting(device="cpu")
STEPS = 3
"""Optimizer steps per epoch of `small()`."""
_server = multiprocessing.get_context("forkserver")
_server.set_forkserver_preload(
    [
        "pytest",
        "rmploss.cli",
        "rmploss.cli.terminal",
        "rmploss.engine.train",
        "rmploss.data.digits",
        "rmploss.models.convnet",
    ]
)


def small(name: str = "digits-rmp", **changes: Any) -> Recipe:
    """A recipe on digits: 4 epochs of 3 steps; 72 test samples, so that the last batch is short."""
    base = recipes.get(name)
    sizes: dict[str, Any] = {"epochs": 4, "batch_size": 32, "train_samples": 100}
    network = base.network.but(width=0.125)
    return base.but(**{"network": network, "T": 2, **sizes, "test_samples": 72, **changes})


SMALL_FLAGS = "--epochs 4 --T 2 --batch-size 32 --train-samples 100 --test-samples 72 --width 0.125"
"""The same on the command line."""


def digest(path: Path) -> str:
    """The digest of a run as it lies on the disk."""
    loaded = checkpoint.load_latest(path, recipe_hash=recipe_hash(RunFolder.open(path).recipe()))
    tensors = loaded.optimizer_state.tensors
    return run.digest(loaded.model_state, tensors, RunFolder.open(path).metrics())


def check_sound(path: Path) -> None:
    """What holds of every run folder that was brought to its end, whatever happened before."""
    folder = RunFolder.open(path)
    steps = [record["step"] for record in folder.metrics()]
    assert steps == [STEPS * epoch for epoch in range(1, len(steps) + 1)]
    assert not list(path.rglob(".tmp-*"))
    assert not list(path.rglob("*.corrupt*"))
    for name in ("metrics.jsonl", "events.jsonl"):
        assert (path / name).read_text().endswith("\n")
    with folder.lock():  # nobody holds it
        pass


def start(target: Callable[..., None], *arguments: Any) -> BaseProcess:
    """A child that runs `target(*arguments)`."""
    process = _server.Process(target=_child, args=(target, *arguments))
    process.start()
    return process


def finish(process: BaseProcess) -> int:
    """Wait for a child; its exit code, or minus the signal that killed it."""
    process.join(120)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError("the child hangs")
    assert process.exitcode is not None
    return process.exitcode


def pipe() -> tuple[Connection, Connection]:
    """Two ends to talk to a child."""
    return _server.Pipe()


def free_port() -> str:
    """A port where ranks can meet."""
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return str(server.getsockname()[1])


def place(rank: int, port: str) -> None:
    """Be one of two ranks, as `torchrun` would say it."""
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}


def _child(target: Callable[..., None], *arguments: Any) -> None:
    torch.set_num_threads(1)
    try:
        target(*arguments)
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def die(owner: object, name: str, when: str, call: int) -> None:
    """Let this process kill itself right before or after the given call of `owner.name`."""
    original = getattr(owner, name)
    calls = 0

    def deadly(*arguments: Any, **options: Any) -> Any:
        nonlocal calls
        calls += 1
        with ExitStack() as stack:
            if calls == call:
                kill = (os.kill, os.getpid(), signal.SIGKILL)
                stack.callback(*kill) if when == "after" else kill[0](*kill[1:])
            return original(*arguments, **options)

    setattr(owner, name, deadly)
