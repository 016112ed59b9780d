"""Contestants in turn, round after round, in one process, every round in another order.

Whatever slows the machine for a while then slows all of them. A turn is two calls, of which the
second counts: in training a step follows a step of the same network, and not another library's,
whose leftovers fill the caches. The figure is the median of the rounds, with the smallest and the
largest beside it.
"""

import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

from rmploss_bench.case import Case
from rmploss_bench.contestants import CONTESTANTS, DENSE, NetRunner, Runner
from rmploss_bench.gate import Gate, gate
from rmploss_bench.peers import MissingPeerError

Progress = Callable[[str, int, int], None]
"""Called with (what, done, total) while long work goes on."""
Act = Callable[[], object]


@dataclass(frozen=True)
class Result:
    """What one contestant came to.

    figures: one value per round, empty if there is none to show, and then `status` says why;
    status: "green", "no gate", or "gate red: ...", or how to install what is missing.
    """

    contestant: str
    what: str
    figures: tuple[float, ...]
    status: str

    @property
    def median(self) -> float:
        """The figure."""
        return statistics.median(self.figures)

    @property
    def red(self) -> bool:
        """Whether the gate was red."""
        return self.status.startswith("gate red")


def rounds(
    acts: Mapping[str, Act], repeats: int, progress: Progress, device: str = "cpu"
) -> dict[str, tuple[float, ...]]:
    """Seconds of each act, `repeats` times in turn, after one untimed round.

    The untimed round pays for what happens once: compilation, allocation, choice of kernels; the
    untimed call before every timed one, for caches that a neighbour filled. The order of every
    round is drawn anew, from the same seed in every run.
    """
    found: dict[str, list[float]] = {name: [] for name in acts}
    total = (repeats + 1) * len(acts)
    order = random.Random(0)
    for turn in range(repeats + 1):
        for index, name in enumerate(order.sample(list(acts), len(acts))):
            acts[name]()
            seconds = timed(acts[name], device)
            if turn:
                found[name].append(seconds)
            progress("measuring" if turn else "warming up", turn * len(acts) + index + 1, total)
    return {name: tuple(values) for name, values in found.items()}


def timed(act: Act, device: str) -> float:
    """Seconds of one call, the device's work included."""
    _wait(device)
    began = time.perf_counter()
    act()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)


def admitted(
    case: Case, names: list[str], *, train: bool, progress: Progress
) -> tuple[dict[str, Runner], dict[str, str]]:
    """The contestants whose gate is green, ready to run, and the status of every one."""
    judge: Gate | None = None
    runners: dict[str, Runner] = {}
    status: dict[str, str] = {}
    for index, name in enumerate(names):
        progress(f"gate of {name}", index, len(names))
        try:
            runner = CONTESTANTS[name](case, train)
            judge = judge or gate(case, train=train)
            why = judge(name)
        except MissingPeerError as missing:
            status[name] = str(missing)
            continue
        # The dense bound computes no network: there is nothing to agree with.
        green = "no gate" if name == DENSE else "green"
        status[name] = f"gate red: {why}" if why else green
        if not why:
            runners[name] = runner
    return runners, status


def steps(case: Case, names: list[str], repeats: int, progress: Progress) -> list[Result]:
    """Seconds of a training step."""
    return _race(case, names, repeats, progress, train=True)


def images_per_second(
    case: Case, names: list[str], repeats: int, progress: Progress
) -> list[Result]:
    """Images per second in evaluation, norms folded where the contestant can."""
    return _race(case, names, repeats, progress, train=False)


def _race(
    case: Case, names: list[str], repeats: int, progress: Progress, *, train: bool
) -> list[Result]:
    runners, status = admitted(case, names, train=train, progress=progress)
    acts: dict[str, Act] = {
        name: runner.step if train else runner.infer for name, runner in runners.items()
    }
    seconds = rounds(acts, repeats, progress, case.setting.device)
    if not train:
        batch = case.setting.batch
        seconds = {name: tuple(batch / s for s in times) for name, times in seconds.items()}
    what = "step (s)" if train else "eval (images/s)"
    return [Result(name, what, seconds.get(name, ()), status[name]) for name in names]


def firing_rate(case: Case) -> float:
    """Spikes per neuron and time step of the case's network, which event-driven code lives on."""
    from rmploss.stats import membrane_stats
    from rmploss_bench.ours import plain

    runner = plain(case, True)
    assert isinstance(runner, NetRunner)
    with membrane_stats() as stats:
        runner.logits()
    spikes = sum(float(layer.firing_rate) * layer.elements for layer in stats)
    return spikes / sum(layer.elements for layer in stats)
