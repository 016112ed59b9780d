"""One execution of a run in forked processes, with its faults; and what it left on the disk."""

import json
import os
import select
import signal
import socket
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch._dynamo  # optimizers import it on their first use: once here, not in every child
import torch.distributed.fsdp
from fault_plan import (
    FAILING,
    FAILING_ONCE,
    FULL,
    FULL_ONCE,
    KILL_CHANGE,
    KILL_LOADER,
    KILL_RANK,
    KILL_TIME,
    SIGNAL,
    Fault,
    Setting,
)
from torch import Tensor
from torch._C._distributed_c10d import TCPStore

import rmploss.cli.train
import rmploss.data.digits
import rmploss.models.convnet  # noqa: F401
from rmploss import _disk, store
from rmploss._disk import Operation
from rmploss.cli import main
from rmploss.data import Samples
from rmploss.data._base import Key
from rmploss.data._loaders import Loaders
from rmploss.engine import checkpoint, loop
from rmploss.engine.batches import RankBatches
from rmploss.engine.run import RunFolder, timeless
from rmploss.engine.verify import verify
from rmploss.errors import UserError
from rmploss.recipes import Recipe

TIMEOUT_S = 15
"""Of a rank that waits for another one."""
PATIENCE_S = 120.0
"""An execution that takes longer hangs."""


@dataclass
class Ended:
    """How an execution ended.

    codes: the exit code of each rank, or minus the signal that killed it.
    struck: the faults that struck.
    output: what all ranks printed.
    changes: the number of changes of the disk.
    hung: it was killed after `PATIENCE_S`.
    """

    codes: list[int]
    struck: list[Fault] = field(default_factory=list)
    output: str = ""
    changes: int = 0
    hung: bool = False


@contextmanager
def served_store(setting: Setting) -> Iterator[int]:
    """Serve a store for the ranks of all executions in the block; yields its port, 0 for none."""
    if not setting.restarted:
        yield 0
        return
    port = _free_port()
    server = _fork(lambda: _serve(port))
    try:
        yield port
    finally:
        os.kill(server, signal.SIGKILL)
        os.waitpid(server, 0)


def _serve(port: int) -> int:
    store = TCPStore("127.0.0.1", port, is_master=True, wait_for_workers=False)
    signal.pause()
    del store
    return 0


def execute(
    runs: Path, recipe: Recipe, setting: Setting, faults: list[Fault], store_port: int = 0
) -> Ended:
    """Begin a run, or resume it if it has begun, in all its ranks; wait for all of them.

    runs: the folder for run folders.
    store_port: of `served_store`.
    """
    words = ["train", *_words(recipe), "--runs-dir", str(runs), "--resume", "auto"]
    words += ["--device", "cpu", "--backend", "reference", "--workers", str(setting.workers)]
    words += ["--save-minutes", "0"] if setting.every_step else []
    words += ["--timeout", str(TIMEOUT_S)]
    port, (reader, writer) = store_port or _free_port(), os.pipe()
    with tempfile.TemporaryFile() as output:
        children = [
            _fork(lambda rank=rank: _work(rank, port, setting, words, faults, writer), output)
            for rank in range(setting.ranks)
        ]
        os.close(writer)
        ended = _wait(children, stop_all=setting.restarted)
        output.seek(0)
        ended.output = output.read().decode(errors="replace")
    for line in _lines(reader):
        report = json.loads(line)
        if "changes" in report:
            ended.changes += report["changes"]
        else:
            ended.struck.append(Fault(**report))
    return ended


def examine(path: Path) -> dict[str, Any]:
    """What must hold of a finished run, found in a child."""
    return _ask(lambda: _examine(path))


def newest_step(path: Path) -> int:
    """The step of the newest sound checkpoint, found in a child; -1: none."""
    return _ask(lambda: _newest_step(path))


def _examine(path: Path) -> dict[str, Any]:
    result, folder = verify(path), RunFolder.open(path)
    events = folder.events()
    try:
        with store.lock(path):
            lock_free = True
    except UserError:
        lock_free = False
    left = [*path.parent.rglob(".tmp-*"), *path.rglob("*.corrupt*")]
    return {
        "state": result.state,
        "damages": [str(damage) for damage in result.damages],
        "digest": result.digest,
        "metrics": [timeless(record) for record in folder.metrics()],
        "inexact": [reason for event in events for reason in event.get("inexact", [])],
        "damaged": [event["files"] for event in events if event["event"] == "damaged"],
        "left": [str(file.relative_to(path.parent)) for file in left],
        "lock_free": lock_free,
    }


def _newest_step(path: Path) -> int:
    try:
        folder = RunFolder.open(path)
        return checkpoint.load_latest(path, recipe_hash=folder.recipe_hash).counters.step
    except UserError:
        return -1


def _words(recipe: Recipe) -> list[str]:
    """The words of the command line for the recipe of `faults.py`."""
    flags = {
        "epochs": recipe.epochs,
        "train-samples": recipe.train_samples,
        "test-samples": recipe.test_samples,
        "batch-size": recipe.batch_size,
        "width": recipe.network.options["width"],
        "T": recipe.T,
    }
    return [recipe.name, *(word for flag, x in flags.items() for word in (f"--{flag}", str(x)))]


def _fork(work: Callable[[], int], output: Any = None) -> int:
    """Fork a child that ends with the exit code of `work`; its process number."""
    assert len([*Path("/proc/self/task").iterdir()]) == 1, "a process with threads must not fork"
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        if output is not None:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        torch.set_num_threads(1)
        code = work()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _work(
    rank: int, port: int, setting: Setting, words: list[str], faults: list[Fault], writer: int
) -> int:
    """What one rank does."""
    if setting.ranks > 1:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(setting.ranks))
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
        os.environ.update(TORCHELASTIC_USE_AGENT_STORE=str(setting.restarted))
    for number in (signal.SIGINT, signal.SIGHUP):  # As in a terminal, under nohup as well.
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else 0)
    store.PAUSE_S = 0.0
    own = [fault for fault in faults if fault.rank == rank]

    def tell(report: dict[str, Any]) -> None:
        os.write(writer, json.dumps(report).encode() + b"\n")

    changes = _strike_at_changes([f for f in own if f.kind in _AT_CHANGES], tell)
    _strike_at_batches([f for f in own if f.kind in (KILL_RANK, KILL_LOADER)], tell)
    _strike_at_times([f for f in own if f.kind in (KILL_TIME, SIGNAL)], tell)
    if setting.workers:
        _load_one_by_one()
    code = main(words)
    tell({"changes": changes()})
    return code


_AT_CHANGES = (KILL_CHANGE, FULL_ONCE, FULL, FAILING_ONCE, FAILING)
_WRITES = ("create", "append", "fsync", "sync", "mkdir", "rename", "lock")
"""The changes that a full or failing disk refuses; it can still remove and truncate."""


def _strike_at_changes(faults: list[Fault], tell: Callable[[dict[str, Any]], None]) -> Any:
    """Let faults strike before changes of the disk; returns the counter of changes."""
    passed, struck = 0, set[Fault]()

    def hook(change: Operation) -> None:
        nonlocal passed
        passed += 1
        for fault in faults:
            once = fault.kind in (FULL_ONCE, FAILING_ONCE)
            if passed < fault.at or (once and fault in struck):
                continue
            if fault.kind != KILL_CHANGE and change.name not in _WRITES:
                continue
            if fault not in struck:
                struck.add(fault)
                tell(asdict(fault))
            if fault.kind == KILL_CHANGE:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(fault.number, os.strerror(fault.number))

    _disk.hooks.append(hook)
    return lambda: passed


def _strike_at_batches(faults: list[Fault], tell: Callable[[dict[str, Any]], None]) -> None:
    """Kill this process or a loader process of it before training batches."""
    original, passed = RankBatches.train, 0

    def batches(*arguments: Any, **options: Any) -> Iterator[tuple[Tensor, Tensor]]:
        nonlocal passed
        iterator = original(*arguments, **options)
        for batch in iterator:
            passed += 1
            for fault in faults:
                loaders = iterator.processes if isinstance(iterator, Loaders) else []
                if passed != fault.at or (fault.kind == KILL_LOADER and not loaders):
                    continue
                tell(asdict(fault))
                pid = loaders[0].pid if fault.kind == KILL_LOADER else os.getpid()
                os.kill(pid, signal.SIGKILL)
            yield batch

    RankBatches.train = batches


def _strike_at_times(faults: list[Fault], tell: Callable[[dict[str, Any]], None]) -> None:
    """Fork a process that sends signals to this one, and ends with it."""
    target, began = os.getpid(), time.monotonic()
    if not faults or os.fork():
        return
    for fault in sorted(faults, key=lambda fault: fault.at):
        while time.monotonic() - began < fault.at:
            time.sleep(0.002)
            if os.getppid() != target:
                os._exit(0)
        tell(asdict(fault))
        os.kill(target, signal.SIGKILL if fault.kind == KILL_TIME else fault.number)
    os._exit(0)


class _OneByOne:
    """The samples of a split without `batch`, so that loader processes serve them."""

    def __init__(self, samples: Samples) -> None:
        self.samples = samples

    @property
    def labels(self) -> Tensor:
        return self.samples.labels

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key, /) -> tuple[Tensor, int]:
        return self.samples[key]


def _load_one_by_one() -> None:
    original = loop.open_splits

    def open_splits(*arguments: Any, **options: Any) -> tuple[Samples, Samples]:
        train, test = original(*arguments, **options)
        return _OneByOne(train), _OneByOne(test)

    loop.open_splits = open_splits


def _wait(children: list[int], *, stop_all: bool) -> Ended:
    """Wait for all ranks; kill those that hang.

    stop_all: end the others when one has failed.
    """
    codes: dict[int, int] = {}
    deadline, hung = time.monotonic() + PATIENCE_S, False
    while len(codes) < len(children):
        for pid in children:
            if pid not in codes:
                done, status = os.waitpid(pid, os.WNOHANG)
                if done:
                    codes[pid] = os.waitstatus_to_exitcode(status)
                    if codes[pid] and stop_all:
                        _signal([pid for pid in children if pid not in codes], signal.SIGTERM)
                        stop_all = False
        time.sleep(0.005)
        if time.monotonic() > deadline:
            hung = True
            _signal([pid for pid in children if pid not in codes], signal.SIGKILL)
    return Ended([codes[pid] for pid in children], hung=hung)


def _signal(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        os.kill(pid, number)


def _lines(reader: int) -> list[bytes]:
    """What the children reported; processes that they left behind may still hold the pipe."""
    data = b""
    while select.select([reader], [], [], 0.0)[0]:
        part = os.read(reader, 1 << 16)
        if not part:
            break
        data += part
    os.close(reader)
    return data.splitlines()


def _ask(question: Callable[[], Any]) -> Any:
    """The answer to a question that computes, from a forked child."""
    with tempfile.TemporaryFile() as file:

        def work() -> int:
            file.write(json.dumps(question()).encode())
            file.flush()
            return 0

        if os.waitpid(_fork(work), 0)[1]:
            raise RuntimeError("the run folder could not be examined")
        file.seek(0)
        return json.loads(file.read())


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]
