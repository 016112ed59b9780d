"""Time contestants in interleaved rounds in one process, every round in another order.

Interleaved, all contestants suffer alike when the machine is slow for a while. In each round a
contestant is called twice and the second call is timed: in training a step follows a step of the
same network, not one of another library, which leaves its own data in the caches. The figure is the
median of the rounds; the smallest and the largest value are kept beside it.

On CUDA a round is up to `IN_A_ROW` calls one after the other, as in training, with one wait for the
device at their end; the figure is the time of one call. So the host may run ahead of the device.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from rmploss.errors import UserError
from rmploss_bench.contestants import contestant
from rmploss_bench.gate import Gate, gate
from rmploss_bench.peers import MissingPeerError
from rmploss_bench.runners import NetRunner, Runner
from rmploss_bench.workload import Workload

IN_A_ROW, ROUND_S = 20, 0.5
"""The calls of a round on CUDA: at most so many, and about so many seconds."""
Ticker = Callable[[str, int, int], None]
"""Receives (what, done, total) during long work: what is being done, and how much of it is done."""
Act = Callable[[], object]
"""The work that is timed."""


@dataclass(frozen=True)
class Result:
    """The result of one contestant.

    contestant: its name.
    what: what was measured, with the unit in brackets: "step (s)".
    figures: one value per round; empty if the contestant gets no figure.
    status: "green", "no gate", "gate red: ...", "failed: ..." or what to install; says why
        `figures` is empty.
    layout: the memory format of its convolutions, where that was chosen for it.
    """

    contestant: str
    what: str
    figures: tuple[float, ...]
    status: str
    layout: str = ""

    @property
    def median(self) -> float:
        """The figure that is shown: the median of the rounds."""
        return statistics.median(self.figures)

    @property
    def red(self) -> bool:
        """True if the gate was red, or the contestant failed."""
        return self.status.startswith(("gate red", "failed"))


def rounds(
    acts: Mapping[str, Act], repeats: int, tick: Ticker, device: str = "cpu"
) -> dict[str, tuple[float, ...]]:
    """Seconds of each act, one value per round.

    acts: name -> the work to time.
    repeats: number of timed rounds.
    tick: called with the progress of the work.
    device: waited for before and after every timed call.

    An untimed round first pays for what happens once: compilation, allocation, choice of kernels.
    An untimed call before every timed one refills the caches. The order within each round is
    random, with the same seed in every run.
    """
    found: dict[str, list[float]] = {name: [] for name in acts}
    calls = dict.fromkeys(acts, 1)
    total = (repeats + 1) * len(acts)
    order = random.Random(0)
    for number in range(repeats + 1):
        for index, name in enumerate(order.sample(list(acts), len(acts))):
            acts[name]()
            seconds = timed(acts[name], device, calls[name])
            if number:
                found[name].append(seconds)
            elif device.startswith("cuda"):
                calls[name] = max(1, min(IN_A_ROW, int(ROUND_S / seconds)))
            tick("measuring" if number else "warming up", number * len(acts) + index + 1, total)
    return {name: tuple(values) for name, values in found.items()}


def timed(act: Act, device: str, calls: int = 1) -> float:
    """Mean seconds of some calls, including the work that they leave to the device."""
    _wait(device)
    began = time.perf_counter()
    for _ in range(calls):
        act()
    _wait(device)
    return (time.perf_counter() - began) / calls


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def admitted(
    workload: Workload, names: list[str], *, train: bool, tick: Ticker
) -> tuple[dict[str, Runner], dict[str, str]]:
    """The contestants that may be measured, ready to run, and the status of every contestant.

    workload: network and batch.
    names: contestants.
    train: True for training, False for evaluation.
    tick: called with the progress of the work.
    """
    judge: Gate | None = None
    runners: dict[str, Runner] = {}
    status: dict[str, str] = {}
    for index, name in enumerate(names):
        tick(f"gate of {name}", index, len(names))
        try:
            runner = contestant(name)(workload, train)
            judge = judge or gate(workload, train=train)
            why = judge(name)
            (runner.step if train else runner.infer)()
        except MissingPeerError as missing:
            status[name] = str(missing)
            continue
        except UserError:
            raise
        except Exception as error:  # a contestant that breaks costs no other its figure
            status[name] = failure(error)
            continue
        # The dense bound computes no network that the gate could compare.
        green = "green" if contestant(name).computes_the_network else "no gate"
        status[name] = f"gate red: {why}" if why else green
        if not why:
            runners[name] = runner
    return runners, status


def failure(error: Exception) -> str:
    """The status of a contestant that raised an error, on one line."""
    words = " ".join(str(error).split())
    return f"failed: {type(error).__name__}: {words[:300]}"


def steps(workload: Workload, names: list[str], repeats: int, tick: Ticker) -> list[Result]:
    """Seconds of a training step; arguments as in `admitted` and `rounds`."""
    return _race(workload, names, repeats, tick, train=True)


def images_per_second(
    workload: Workload, names: list[str], repeats: int, tick: Ticker
) -> list[Result]:
    """Images per second in evaluation; rmploss folds its norms into the convolutions."""
    return _race(workload, names, repeats, tick, train=False)


def _race(
    workload: Workload, names: list[str], repeats: int, tick: Ticker, *, train: bool
) -> list[Result]:
    runners, status = admitted(workload, names, train=train, tick=tick)
    acts: dict[str, Act] = {
        name: runner.step if train else runner.infer for name, runner in runners.items()
    }
    seconds = rounds(acts, repeats, tick, workload.conditions.device)
    if not train:
        batch = workload.conditions.batch
        seconds = {name: tuple(batch / s for s in times) for name, times in seconds.items()}
    what = "step (s)" if train else "eval (images/s)"
    layouts = {name: runner.layout for name, runner in runners.items()}
    return [
        Result(name, what, seconds.get(name, ()), status[name], layouts.get(name, ""))
        for name in names
    ]


def firing_rate(workload: Workload) -> float:
    """Spikes per neuron and time step of the workload's network; dimensionless.

    The time of event-driven convolutions depends on it.
    """
    from rmploss.stats import membrane_stats
    from rmploss_bench.ours import make_rmploss

    runner = make_rmploss(workload, True)
    assert isinstance(runner, NetRunner)
    with membrane_stats() as stats:
        runner.logits()
    spikes = sum(float(layer.firing_rate) * layer.elements for layer in stats)
    return spikes / sum(layer.elements for layer in stats)
