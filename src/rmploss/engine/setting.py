"""Where and how a run is executed: device, processes, backend. None of it is part of a recipe."""

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
class Setting:
    """Where and how a run is executed; none of it may change the result on one device.

    data_dir: the data sets; device: "auto", "cpu", "cuda"; workers: loader processes; backend: the
    provider of the operations (`ops.use_backend`); start: the run folder that a new run starts
    from, where its recipe asks for one.
    """

    data_dir: Path | None = None
    device: str = "auto"
    workers: int = 0
    backend: str = "auto"
    command: Sequence[str] = ()
    start: Path | None = None

    def words(self) -> str:
        """The flags of the command line that say the same."""
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
                f"workers = {self.workers}", "must not be negative", "0: no processes"
            )
            raise UserError("nobody can load the data", [problem])


@contextmanager
def join(device: str = "auto", world: World | None = None) -> Iterator[World]:
    """The processes that train together, this one among them, until the block ends.

    world: those of an outer block, to stay with.
    """
    if world is not None:
        yield world
        return
    world = distributed.start(device)
    try:
        yield world
    finally:
        distributed.stop()


def agree(world: World) -> None:
    """Raise `UserError` on all ranks unless all run the same kernels: their collectives differ."""
    ours = ops.describe(world.device)
    main = world.broadcast_text(ours)
    others = world.all_reduce_sum(torch.tensor([float(ours != main)], dtype=torch.float64))
    if others.item():
        raise UserError(
            f"rank 0 runs on {main!r}, {int(others.item())} other ranks do not (rank {world.rank}: "
            f"{ours!r}): install alike, or choose with --backend"
        )


def whereabouts(world: World) -> dict[str, Any]:
    """Where an execution runs, and on which backend: for its record."""
    return {
        "device": str(world.device),
        "ranks": world.size,
        "threads": torch.get_num_threads(),
        "backend": ops.describe(world.device),
        "versions": versions(),
    }


def inexact(loaded: Loaded, events: Sequence[Mapping[str, Any]], world: World) -> list[str]:
    """Why a resumed run may differ from an unbroken one in the last bits; empty: it does not.

    loaded: the checkpoint it goes on from; events: what the run's folder has recorded so far.
    """
    here = whereabouts(world)
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
