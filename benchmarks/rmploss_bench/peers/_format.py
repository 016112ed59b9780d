"""The memory format in which a peer's captured step is faster, by measurement on the device."""

import time
from collections.abc import Callable

import torch

from rmploss_bench.capture import Captured
from rmploss_bench.conditions import Conditions
from rmploss_bench.runners import NetRunner

FORMATS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
"""The names of memory formats, as rows show them."""
REPLAYS = 10
"""Number of replays that are timed for each format."""
_found: dict[tuple[str, bool, Conditions], torch.memory_format] = {}

Build = Callable[[torch.memory_format], NetRunner]
"""Makes a peer's runner with its network in a memory format."""


def faster(peer: str, conditions: Conditions, train: bool, build: Build) -> torch.memory_format:
    """The faster of the two formats for a peer on CUDA; measured once under the same conditions.

    peer: its name.
    conditions: of its workload.
    train: True for a training step, False for a forward.
    build: makes the peer's runner.

    The captured step is timed, since the host limits the eager one and hides the difference.
    """
    key = (peer, train, conditions)
    if key not in _found:
        seconds = {kind: _seconds(build(kind), conditions, train) for kind in FORMATS.values()}
        _found[key] = min(seconds, key=lambda kind: seconds[kind])
    return _found[key]


def _seconds(runner: NetRunner, conditions: Conditions, train: bool) -> float:
    captured = Captured(runner, conditions, train)
    act = captured.step if train else captured.infer
    act()
    torch.cuda.synchronize(conditions.device)
    began = time.perf_counter()
    for _ in range(REPLAYS):
        act()
    torch.cuda.synchronize(conditions.device)
    return time.perf_counter() - began
