"""The topics measured in processes of their own: peak memory and the time to the first step."""

from collections.abc import Callable

from rmploss_bench.child import first_step_of, memory_of
from rmploss_bench.conditions import Conditions
from rmploss_bench.timing import Result, Ticker, admitted
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
    measure: Callable[[Conditions, str], float],
    what: str,
) -> list[Result]:
    names = [name for name in names if name != "dense-bound"]
    runners, status = admitted(workload, names, train=True, tick=tick)
    figures: dict[str, list[float]] = {name: [] for name in runners}
    turns = [name for _ in range(repeats) for name in runners]
    for index, name in enumerate(turns):
        tick(f"a process for {name}", index, len(turns))
        figures[name].append(measure(workload.conditions, name))
    return [Result(name, what, tuple(figures.get(name, ())), status[name]) for name in names]
