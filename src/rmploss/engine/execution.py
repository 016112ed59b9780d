"""How a run is executed: device, processes, backend. None of it is part of a recipe."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rmploss import ops
from rmploss.engine import distributed
from rmploss.engine.checkpoint import Loaded
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.errors import Problem, UserError


@dataclass(frozen=True)
class Execution:
    """Everything about a run that its recipe leaves open. On one device it never changes a result.

    data_dir: the folder of the data sets; None: the default (`data.data_root`).
    device: "auto", "cpu", "cuda" or "cuda:<n>".
    workers: the number of loader processes; 0 loads in this process.
    backend: the backend of the operations (`ops.use_backend`).
    command: the words of the command line, for the run's record.
    start: the run folder (`--start`) with the initial weights, if the recipe needs one.
    """

    data_dir: Path | None = None
    device: str = "auto"
    workers: int = 0
    backend: str = "auto"
    command: Sequence[str] = ()
    start: Path | None = None

    def command_flags(self) -> str:
        """The command-line flags of this execution, without `--start`: " --device cuda ..."."""
        flags = {"--data-dir": self.data_dir, "--workers": self.workers or None}
        if self.device != "auto":
            flags["--device"] = self.device
        if self.backend != "auto":
            flags["--backend"] = self.backend
        given = ((flag, value) for flag, value in flags.items() if value is not None)
        return "".join(f" {flag} {shlex.quote(str(value))}" for flag, value in given)

    def __post_init__(self) -> None:
        if self.workers < 0:
            problem = Problem(
                f"workers = {self.workers}", "is negative", "0 loads in the training process"
            )
            raise UserError("workers must be >= 0", [problem])


@contextmanager
def join(device: str = "auto", world: World | None = None) -> Iterator[World]:
    """Join the process group, yield this process's `World`, and leave the group afterwards.

    device: see `distributed.init`.
    world: that of an outer `join` block; it is yielded as it is.
    """
    if world is not None:
        yield world
        return
    world = distributed.init(device)
    try:
        yield world
    finally:
        distributed.shutdown()


def require_same_backend(world: World) -> None:
    """Raise `UserError` on all ranks unless all run the same kernels: their collectives differ."""
    ours = ops.describe(world.device)
    main = world.broadcast_text(ours)
    others = world.all_reduce_sum(torch.tensor([float(ours != main)], dtype=torch.float64))
    if others.item():
        raise UserError(
            f"rank 0 runs on {main!r}, {int(others.item())} other ranks do not (rank {world.rank}: "
            f"{ours!r}): use equal installations, or choose a --backend"
        )


def placement(world: World) -> dict[str, Any]:
    """The device, ranks, threads, backend and versions of an execution, for events.jsonl."""
    return {
        "device": str(world.device),
        "ranks": world.size,
        "threads": torch.get_num_threads(),
        "backend": ops.describe(world.device),
        "versions": versions(),
    }


def inexact_reasons(loaded: Loaded, events: Sequence[Mapping[str, Any]], world: World) -> list[str]:
    """Why a resumed run may differ from an unbroken one in the last bits; empty: it cannot.

    loaded: the checkpoint that is resumed.
    events: the records of the run's events.jsonl.
    world: this process among the ranks.
    """
    here = placement(world)
    reasons = [
        f"{name} {there} is now {here['versions'].get(name)}"
        for name, there in loaded.versions.items()
        if here["versions"].get(name) != there
    ]
    if loaded.threads != here["threads"]:
        reasons.append(f"{loaded.threads} threads are now {here['threads']}")
    before = [event for event in events if event["event"] == "execute"]
    reasons += [
        f"{name} {before[-1][name]} is now {here[name]}"
        for name in ("device", "ranks", "backend")
        if before and before[-1].get(name) != here[name]
    ]
    return reasons
