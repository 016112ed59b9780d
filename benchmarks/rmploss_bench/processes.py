"""What is measured in processes of their own: peak memory, and seconds until the first step."""

from collections.abc import Callable

from rmploss_bench.case import Case, Setting
from rmploss_bench.child import first_step_of, memory_of
from rmploss_bench.timing import Progress, Result, admitted

FIRST = ("rmploss+rmp", "rmploss", "spikingjelly", "spikingjelly-compiled")
"""Whose first step is measured, where nobody else is asked for."""


def memory(case: Case, names: list[str], repeats: int, progress: Progress) -> list[Result]:
    """Peak bytes of a step above the built model (see `rmploss_bench.memory`)."""
    return _measured(case, names, repeats, progress, memory_of, "memory (bytes)")


def first_step(case: Case, names: list[str], repeats: int, progress: Progress) -> list[Result]:
    """Seconds from the start of Python to the end of the first training step."""
    return _measured(case, names, repeats, progress, first_step_of, "first step (s)")


def _measured(
    case: Case,
    names: list[str],
    repeats: int,
    progress: Progress,
    measure: Callable[[Setting, str], float],
    what: str,
) -> list[Result]:
    names = [name for name in names if name != "dense-bound"]
    runners, status = admitted(case, names, train=True, progress=progress)
    figures: dict[str, list[float]] = {name: [] for name in runners}
    turns = [name for _ in range(repeats) for name in runners]
    for index, name in enumerate(turns):
        progress(f"a process for {name}", index, len(turns))
        figures[name].append(measure(case.setting, name))
    return [Result(name, what, tuple(figures.get(name, ())), status[name]) for name in names]
