"""The topics measured in processes of their own: peak memory and the time to the first step."""

from collections.abc import Callable

from rmploss.errors import UserError
from rmploss_bench.child import first_step_of, memory_of
from rmploss_bench.conditions import Conditions
from rmploss_bench.contestants import contestant
from rmploss_bench.timing import Result, Ticker, admitted, failure
from rmploss_bench.workload import Workload

FIRST = ("rmploss+rmp", "rmploss", "spikingjelly", "spikingjelly-compiled")
"""The contestants of the first step, where `--only` names none."""


def memory(workload: Workload, names: list[str], repeats: int, tick: Ticker) -> list[Result]:
    """Peak bytes of a training step above the built model (see `rmploss_bench.memory`).

    workload: network and batch.
    names: contestants; the dense bound is left out.
    repeats: processes per contestant.
    tick: called with the progress of the work.
    """
    return _measured(workload, names, repeats, tick, memory_of, "memory (bytes)")


def first_step(workload: Workload, names: list[str], repeats: int, tick: Ticker) -> list[Result]:
    """Seconds from the start of Python to the end of the first training step.

    The arguments are those of `memory`.
    """
    return _measured(workload, names, repeats, tick, first_step_of, "first step (s)")


def _measured(
    workload: Workload,
    names: list[str],
    repeats: int,
    tick: Ticker,
    measure: Callable[[Conditions, str], dict[str, float]],
    usual: str,
) -> list[Result]:
    names = [name for name in names if contestant(name).computes_the_network]
    runners, status = admitted(workload, names, train=True, tick=tick)
    turns = [name for _ in range(repeats) for name in runners]
    runners.clear()  # their memory is the device's, which the processes share
    figures: dict[str, dict[str, list[float]]] = {}
    for index, name in enumerate(turns):
        tick(f"a process for {name}", index, len(turns))
        try:
            found = measure(workload.conditions, name)
        except UserError as error:
            status[name] = failure(error)
            continue
        for what, value in found.items():
            figures.setdefault(what, {}).setdefault(name, []).append(value)
    return [
        Result(name, what, tuple(found.get(name, ())), status[name])
        for what, found in (figures or {usual: {}}).items()
        for name in names
    ]
