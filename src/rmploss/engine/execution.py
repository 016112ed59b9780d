"""How a run is executed: device, processes, backend. None of it is part of a recipe."""

import math
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch

from rmploss import ops
from rmploss.engine import distributed
from rmploss.engine.capture import Capture
from rmploss.engine.checkpoint import Loaded
from rmploss.engine.distributed import World
from rmploss.engine.environment import source_hash, versions
from rmploss.engine.ranks import name_lost_ranks
from rmploss.errors import Problem, UserError

UPDATE = "fused, masks of the device's generator"
"""How optimizers round and dropout draws, for events.jsonl; changed only with either."""
EARLIER_UPDATE = "one operation at a time, masks of a derived generator"
"""`UPDATE` of runs that do not record it."""
SAVE_MINUTES = 9.0
"""With the step that is running then, and the time to write, at most ten minutes are lost."""
RANDOM_NUMBERS = "splitmix64"
"""How samples in memory are augmented (`data._draws`), in the record of every execution. Records
without it are of versions that seeded a generator for every sample."""
TIMEOUT_S = 60.0
"""The default of `Execution.timeout_s`."""
WORKERS_PER_CORE = 64
"""Loader processes of a core above which a number that is asked for is a slip."""


@dataclass(frozen=True)
class Execution:
    """Everything about a run that its recipe leaves open. On one device it never changes a result.

    data_dir: the folder of the data sets; None: the default (`data.data_root`).
    device: "auto", "cpu", "cuda" or "cuda:<n>".
    workers: the number of loader processes; 0 loads in this process; None: chosen from the
        machine (`batches.loader_processes`). Samples in memory need none.
    backend: the backend of the operations (`ops.use_backend`).
    command: the words of the command line, for the run's record.
    start: the run folder (`--start`) with the initial weights, if the recipe needs one.
    capture: capture the training step into a CUDA graph: "auto" where it can be, "on" or an error.
    deterministic: on CUDA take deterministic kernels alone, so that a resumed run equals an
        unbroken one bit for bit; slower.
    save_minutes: a checkpoint is due so many minutes after the last one, beside those of the epoch
        ends, by the clock of rank 0; 0: after every step; infinite: at epoch ends alone.
    timeout_s: how long to wait for another rank or a loader process, in seconds.
    analyze: write what reports show after training (`after_training`); `--resume` adds it later.
    track: the tracker that listens (`rmploss.track`), for the words that resume a run; "": none.
    """

    data_dir: Path | None = None
    device: str = "auto"
    workers: int | None = None
    backend: str = "auto"
    command: Sequence[str] = ()
    start: Path | None = None
    capture: Capture = "auto"
    deterministic: bool = False
    save_minutes: float = SAVE_MINUTES
    timeout_s: float = TIMEOUT_S
    analyze: bool = True
    track: str = ""

    def command_flags(self) -> str:
        """The command-line flags of this execution, without `--start`: " --device cuda ..."."""
        flags = {"--data-dir": self.data_dir, "--workers": self.workers}
        if self.device != "auto":
            flags["--device"] = self.device
        if self.backend != "auto":
            flags["--backend"] = self.backend
        if self.timeout_s != TIMEOUT_S:
            flags["--timeout"] = f"{self.timeout_s:g}"
        if self.capture != "auto":
            flags["--capture"] = self.capture
        if self.save_minutes != SAVE_MINUTES:
            flags["--save-minutes"] = self.save_minutes
        if self.track:
            flags["--track"] = self.track
        given = ((flag, value) for flag, value in flags.items() if value is not None)
        words = "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in given)
        return words + (" --deterministic" if self.deterministic else "")

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 0:
            problem = Problem(
                f"workers = {self.workers}", "is negative", "0 loads in the training process"
            )
            raise UserError("workers must be >= 0", [problem])
        most = WORKERS_PER_CORE * (os.cpu_count() or 1)
        if self.workers is not None and self.workers > most:
            problem = Problem(f"workers = {self.workers}", "are too many here", f"at most {most}")
            raise UserError("too many loader processes", [problem])
        if not self.save_minutes >= 0:
            what, fix = "is no time", f"the default is {SAVE_MINUTES:g}; inf: at epoch ends alone"
            problem = Problem(f"save_minutes = {self.save_minutes}", what, fix)
            raise UserError("save_minutes must be >= 0", [problem])
        if not 0 < self.timeout_s < math.inf:
            problem = Problem(f"timeout = {self.timeout_s}", "must be a positive number of seconds")
            raise UserError("no such timeout", [problem])


@contextmanager
def join(
    device: str = "auto",
    world: World | None = None,
    timeout_s: float = TIMEOUT_S,
    *,
    deterministic: bool = False,
) -> Iterator[World]:
    """Join the process group, yield this process's `World`, and leave the group afterwards.

    device: see `distributed.init`.
    world: that of an outer `join` block; it is yielded as it is.
    timeout_s, deterministic: see `Execution`.

    Raises `UserError` if the ranks have other versions or another source; `RankError` if one ends
    inside the block.
    """
    if deterministic:  # cuBLAS reads it when the process first uses the GPU, as NCCL does below
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    if world is not None:
        yield world
        return
    world = distributed.init(device, timedelta(seconds=timeout_s))
    try:
        with name_lost_ranks(world.meeting, lambda: None):
            if world.meeting:
                world.meeting.require_equal({**versions(), "source": source_hash()})
            yield world
    finally:
        distributed.shutdown()


def require_same_run(world: World, **facts: Any) -> None:
    """Raise `UserError` on all ranks unless the facts and the kernels of all are the same.

    facts: values of JSON by name.

    Ranks of different recipes or kernels would wait for each other's collectives, or mix them.
    """
    if world.meeting:
        world.meeting.require_equal({"backend": ops.describe(world.device), **facts})


def require_same_checkpoint(world: World, loaded: Loaded) -> None:
    """Raise `UserError` on all ranks unless all have loaded the same checkpoint.

    Each reads the disk by itself: a rank that does not see the newest one yet, or reads a damaged
    copy, would train from other weights than the rest until the ranks wait for each other in vain.
    """
    if world.meeting:
        facts = {"checkpoint": loaded.path.name, "its SHA-256": loaded.sha256[:12]}
        fix = "all ranks must see the same files: look at the disk of this rank, then again"
        world.meeting.require_equal(facts, fix)


@contextmanager
def kernels(world: World, deterministic: bool) -> Iterator[None]:
    """Choose among CUDA's kernels inside the block: the fastest, or the deterministic ones.

    Those of cuBLAS are chosen before, by `join`.

    Without `deterministic` cuDNN measures its kernels at the first call of each shape, and takes
    the fastest: two runs may differ in the last bits. On a CPU nothing is chosen.
    """
    if world.device.type != "cuda":
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic, torch.are_deterministic_algorithms_enabled()
    try:
        cudnn.benchmark, cudnn.deterministic = not deterministic, deterministic
        torch.use_deterministic_algorithms(deterministic or before[2])
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = before[:2]
        torch.use_deterministic_algorithms(before[2])


def placement(world: World, deterministic: bool = False) -> dict[str, Any]:
    """The device, ranks, threads, backend and versions of an execution, for events.jsonl.

    world: this process among the ranks.
    deterministic: see `Execution`.
    """
    return {
        "device": str(world.device),
        "ranks": world.size,
        "threads": torch.get_num_threads(),
        "random_numbers": RANDOM_NUMBERS,
        "backend": ops.describe(world.device),
        "kernels": "deterministic" if deterministic or world.device.type == "cpu" else "fastest",
        "update": UPDATE,
        "versions": versions(),
    }


def inexact_reasons(
    loaded: Loaded,
    events: Sequence[Mapping[str, Any]],
    world: World,
    deterministic: bool = False,
) -> list[str]:
    """Why a resumed run may differ from an unbroken one in the last bits; empty: it cannot.

    loaded: the checkpoint that is resumed.
    events: the records of the run's events.jsonl.
    world: this process among the ranks.
    deterministic: see `Execution`.
    """
    here = placement(world, deterministic)
    reasons = [
        f"{name} {there} is now {here['versions'].get(name)}"
        for name, there in loaded.versions.items()
        if here["versions"].get(name) != there
    ]
    if loaded.threads != here["threads"]:
        are = "thread is" if loaded.threads == 1 else "threads are"
        fix = f"OMP_NUM_THREADS={loaded.threads} sets as many as before"
        reasons.append(f"{loaded.threads} {are} now {here['threads']}; {fix}")
    before = [event for event in events if event.get("event") == "execute"]
    if before and "random_numbers" not in before[-1]:
        reasons.append("images in memory were augmented with other random numbers before")
    reasons += [
        f"{name} {before[-1][name]} is now {here[name]}"
        for name in ("device", "ranks", "backend")
        if before and before[-1].get(name) != here[name]
    ]
    if before and before[-1].get("update", EARLIER_UPDATE) != here["update"]:
        reasons.append(f"the update {before[-1].get('update', EARLIER_UPDATE)} is now {UPDATE}")
    if here["kernels"] != "deterministic":
        reasons.append("cuDNN takes its fastest kernels, which --deterministic would not")
    elif before and before[-1].get("kernels", here["kernels"]) != here["kernels"]:
        reasons.append("cuDNN took its fastest kernels before")
    return reasons
