"""Epochs per hour: the time of an epoch of CIFAR-10, computed from its measured parts.

    seconds = 50,000 / B (load + step) + 10,000 / rate

load is the time to read, augment (crop and flip) and stack one batch of B images in this process.
step (seconds) and rate (images per second) are those of the topics `step` and `eval`, behind the
same gate. The parts do not overlap, as in a run without loader processes.
"""

import statistics
import time
from pathlib import Path

from rmploss.data import DATASETS, batches
from rmploss.errors import Problem, UserError
from rmploss_bench.timing import Result, Ticker, images_per_second, steps
from rmploss_bench.workload import Workload

USUAL = (
    "rmploss+rmp",
    "rmploss",
    "spikingjelly",
    "spikingjelly-compiled",
    "snntorch",
    "norse",
)
"""The contestants, where `--only` names none."""
TRAIN, TEST = 50_000, 10_000
"""Number of training and of test images of CIFAR-10."""
LOADS = 5
"""Number of batches that are loaded; the median counts."""


def epochs_per_hour(
    workload: Workload, names: list[str], repeats: int, tick: Ticker
) -> list[Result]:
    """Epochs per hour of each contestant: one figure per pair of rounds of `step` and `eval`.

    workload: network and batch.
    names: contestants.
    repeats: rounds of each topic.
    tick: called with the progress of the work.
    Raises `UserError` if CIFAR-10 is not there.
    """
    load = seconds_per_load(workload)
    trained = steps(workload, names, repeats, tick)
    tested = images_per_second(workload, names, repeats, tick)
    found = []
    for step, rate in zip(trained, tested, strict=True):
        figures = tuple(
            3600 / (TRAIN / workload.conditions.batch * (load + s) + TEST / images)
            for s, images in zip(step.figures, rate.figures, strict=False)
        )
        status = step.status if step.status != "green" else rate.status
        found.append(Result(step.contestant, "epochs per hour", figures, status))
    return found


def seconds_per_load(workload: Workload) -> float:
    """Seconds to load one training batch: the median of `LOADS`.

    Raises `UserError` if CIFAR-10 is not there.
    """
    conditions = workload.conditions
    if not conditions.data_dir:
        problem = Problem("CIFAR-10", "is not here", "rmploss data fetch cifar10")
        raise UserError("an epoch needs its images", [problem])
    data = DATASETS.make("cifar10", augment="standard")
    train = data.open(Path(conditions.data_dir), seed=0, T=conditions.T).train
    loads = batches(
        train, batch_size=conditions.batch, epoch=0, seed=0, shuffle=True, drop_last=True
    )
    found = []
    for _ in range(LOADS):
        began = time.perf_counter()
        next(loads)
        found.append(time.perf_counter() - began)
    return statistics.median(found)
