"""Loader processes that die, hang or stop are replaced once, with the same samples."""

import gc
import mmap
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from torch import Tensor

from rmploss.data import InMemory, Key, batches, take
from rmploss.data._in_memory import Prepare
from rmploss.errors import LoaderError

SECONDS = 1.5
"""The timeout for processes that are silent."""


def stop_itself() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


TROUBLE: dict[str, tuple[Callable[[], object], str]] = {
    "killed": (lambda: os.kill(os.getpid(), signal.SIGKILL), "was killed by SIGKILL"),
    "exit 0": (lambda: sys.exit(0), "ended with exit code 0"),
    "hangs": (lambda: time.sleep(600), "has not answered for 1.5 s"),
    "stopped": (stop_itself, "has not answered for 1.5 s"),
}


@dataclass(eq=False)
class Samples:
    """Sample i is i; before sample 7 a loader process has its trouble, so many times."""

    trouble: Callable[[], object] = lambda: None
    times: int = 0
    n: int = 24
    counter: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1))
    """The troubles so far, of all processes."""

    @property
    def labels(self) -> Tensor:
        return torch.arange(self.n) % 3

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, key: Key) -> tuple[Tensor, int]:
        if key.index == 7 and self.counter[0] < self.times:
            self.counter[0] += 1
            self.trouble()
        return torch.full((2, 4, 4), float(key.index)), key.index % 3


def epoch(samples: object, **options: object) -> list[tuple[Tensor, Tensor]]:
    given = {
        "batch_size": 4, "epoch": 1, "seed": 0, "shuffle": True, "drop_last": True,
        "workers": 2, **options,
    }  # fmt: skip
    return list(batches(samples, **given))  # pyright: ignore[reportArgumentType, reportCallIssue]


def timeout_for(kind: str) -> float:
    """Long where it must not matter."""
    return SECONDS if kind in ("hangs", "stopped") else 60.0


def require_equal(
    found: list[tuple[Tensor, Tensor]], expected: list[tuple[Tensor, Tensor]]
) -> None:
    for (x, labels), (x0, labels0) in zip(found, expected, strict=True):
        assert torch.equal(x, x0)
        assert torch.equal(labels, labels0)


@pytest.fixture(autouse=True)
def no_child_is_left() -> Iterator[None]:
    before = children()
    yield
    gc.collect()
    assert set(children()) <= set(before)


@pytest.mark.parametrize("kind", TROUBLE)
def test_a_lost_process_is_replaced_once_with_the_same_samples(kind: str) -> None:
    trouble, what = TROUBLE[kind]
    told: list[str] = []
    found = epoch(Samples(trouble, 1), on_loss=told.append, timeout_s=timeout_for(kind))
    require_equal(found, epoch(Samples(), workers=0))
    (line,) = told
    assert what in line
    assert "sample 7, epoch 2, batch " in line


@pytest.mark.parametrize("kind", ["killed", "exit 0", "stopped"])
def test_a_second_loss_names_the_sample(kind: str) -> None:
    trouble, what = TROUBLE[kind]
    samples = Samples(trouble, 9)
    with pytest.raises(LoaderError) as caught:
        epoch(samples, timeout_s=timeout_for(kind))
    assert samples.counter[0] == 2
    assert "lost twice" in str(caught.value)
    assert f"sample 7: the process {what}" in str(caught.value)
    assert "the batch: samples" in str(caught.value)
    assert caught.value.exit_code == 8


def test_idle_processes_killed_from_outside_are_replaced() -> None:
    """Twice, so far apart that no batch can be lost twice."""
    found, before = [], set(children())
    for batch in batches(
        Samples(), batch_size=4, epoch=1, seed=0, shuffle=True, drop_last=True, workers=2
    ):
        found.append(batch)
        for pid in set(children()) - before if len(found) in (1, 5) else ():
            os.kill(pid, signal.SIGKILL)
    require_equal(found, epoch(Samples(), workers=0))


def children() -> list[int]:
    """The child processes of this process."""
    return [
        int(pid)
        for pid in Path("/proc/self/task", str(os.getpid()), "children").read_text().split()
    ]


@pytest.mark.parametrize("workers", [0, 1])
def test_an_error_of_a_data_set_names_the_sample(workers: int) -> None:
    def fail() -> None:
        raise ValueError("no such pixel")

    taken = take(Samples(fail, 1), 23)
    with pytest.raises(
        LoaderError, match=r"sample 7 \(epoch 2, batch \d\): ValueError: no such"
    ) as e:
        epoch(taken, workers=workers)
    assert f"{Path(__file__).name}, line" in str(e.value)


def test_used_up_descriptors_are_told() -> None:
    """In a loader, by a data set that leaks; in the training process, which starts them."""
    kept = []

    def leak() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        while True:
            kept.append(open(os.devnull))  # noqa: PTH123, SIM115

    with pytest.raises(LoaderError, match=r"cannot load sample 7\n.*limit of open files.*ulimit"):
        epoch(Samples(leak, 1))
    no_start = pytest.raises(LoaderError, match=r"cannot start the loader processes\n.*ulimit -n")
    with no_descriptors_left(), no_start:
        epoch(Samples())
    options = {"batch_size": 4, "epoch": 1, "seed": 0, "shuffle": True, "drop_last": True}
    loads = batches(Samples(), workers=2, **options)
    with no_descriptors_left(), pytest.raises(LoaderError, match="cannot receive a batch"):
        next(loads)


@contextmanager
def no_descriptors_left() -> Iterator[None]:
    """The next file that this process opens is one too many."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_no_loader_outlives_its_parent() -> None:
    """The parent is killed while one loader hangs in a sample and another waits for work."""
    program = (
        "import os, time; from tests.data.test_lost_loaders import *\n"
        "loads = batches(Samples(lambda: time.sleep(600), 9), batch_size=4, epoch=1, seed=0,\n"
        "    shuffle=False, drop_last=True, workers=2)\n"
        "next(loads); print(*children(), flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        loaders = [int(pid) for pid in parent.stdout.readline().split()]
        parent.kill()
    assert len(loaders) == 2
    deadline = time.monotonic() + 30
    while any(runs(pid) for pid in loaders):
        assert time.monotonic() < deadline, "a loader goes on"
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """True if a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_samples_of_the_host_are_loaded_ahead_for_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = []
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: pinned.append(tensor) or tensor)
    stored = torch.arange(24 * 16, dtype=torch.uint8).view(24, 1, 4, 4)
    samples = InMemory(stored, torch.arange(24) % 3, _Scale())
    found = epoch(samples, pin=True)
    require_equal(found, epoch(samples, workers=0))
    assert len(pinned) == 2 * len(found)


class _Scale(Prepare):
    def forward(self, stored: Tensor, words: Tensor) -> Tensor:
        return stored / 255
