"""Peak memory and the first step are measured in processes of their own."""

import sys

import pytest
import torch

from rmploss.errors import UserError
from rmploss_bench import memory, processes
from rmploss_bench.child import answer
from rmploss_bench.memory import peaks
from rmploss_bench.runners import NetRunner
from tests.benchmarks.kits import tiny, tiny_workload
from tests.benchmarks.test_timing import silent

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
MIB = 2**20


class _Eats(NetRunner):
    """A step that allocates 64 MiB and frees them."""

    def __init__(self) -> None:
        pass

    def forget(self) -> None:
        pass

    def step(self) -> None:
        torch.ones(64 * MIB, dtype=torch.uint8)


@LINUX
def test_the_peak_of_a_step_is_seen() -> None:
    torch.ones(256 * MIB, dtype=torch.uint8)  # a higher peak before it does not count
    held = memory.status("VmRSS")
    grown = memory.peak_of_step(_Eats(), "cpu") - held
    assert grown == pytest.approx(64 * MIB, rel=0.1)


@LINUX
def test_memory_is_measured_by_a_fresh_process() -> None:
    workload = tiny_workload()
    (result,) = processes.memory(workload, ["rmploss", "dense-bound"], 1, silent)
    assert result.contestant == "rmploss"
    assert result.figures[0] > 0


def test_a_process_that_fails_costs_no_other_its_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(conditions: object, name: str) -> dict[str, float]:
        if name == "rmploss":
            raise UserError("out of\nmemory")
        return {"memory (bytes)": 1.0}

    monkeypatch.setattr(processes, "memory_of", measure)
    names = ["rmploss+rmp", "rmploss"]
    first, second = processes.memory(tiny_workload(), names, 1, silent)
    assert (first.figures, first.status) == ((1.0,), "green")
    assert (second.figures, second.status) == ((), "failed: UserError: out of memory")


def test_the_bound_has_no_memory() -> None:
    with pytest.raises(UserError, match="no memory"):
        peaks(tiny(), "dense-bound")


def test_the_first_step_is_timed_from_the_start_of_the_process() -> None:
    (result,) = processes.first_step(tiny_workload(), ["rmploss"], 1, silent)
    assert result.figures[0] > 0.5  # importing torch alone takes longer


def test_the_error_of_a_process_is_passed_on() -> None:
    with pytest.raises(UserError, match="the process that measured nobody failed"):
        processes.memory_of(tiny(), "nobody")
    with pytest.raises(UserError, match='unknown "nobody"'):
        answer('{"conditions": {"network": "resnet20", "T": 1, "batch": 1, "width": 0.0625},'
               ' "contestant": "nobody", "task": "memory"}')  # fmt: skip
