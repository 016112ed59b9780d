"""Epochs per hour: an epoch of CIFAR-10 put together from its measured parts.

    seconds = 50,000 / B (load + step) + 10,000 / rate

load: reading, augmenting (crop and flip) and stacking one batch of B images, in this process; step
and rate: of a training step and of evaluation, as the topics of that name measure them, behind the
same gate. Nothing of it overlaps, as in a run without loader processes.
"""

import statistics
import time
from pathlib import Path

import torch

from rmploss.data import DATASETS, Key
from rmploss.errors import Problem, UserError
from rmploss_bench.case import Case
from rmploss_bench.timing import Progress, Result, images_per_second, steps

USUAL = (
    "rmploss+rmp",
    "rmploss",
    "spikingjelly",
    "spikingjelly-compiled",
    "snntorch",
    "norse",
)
"""Who is measured, where nobody else is asked for."""
TRAIN, TEST = 50_000, 10_000
"""The images of CIFAR-10."""
LOADS = 5
"""Batches that are loaded to know how long one takes."""


def epochs_per_hour(case: Case, names: list[str], repeats: int, progress: Progress) -> list[Result]:
    """3600 over the seconds of an epoch, from the rounds of both topics in their order."""
    load = seconds_per_load(case)
    trained = steps(case, names, repeats, progress)
    tested = images_per_second(case, names, repeats, progress)
    found = []
    for step, rate in zip(trained, tested, strict=True):
        figures = tuple(
            3600 / (TRAIN / case.setting.batch * (load + s) + TEST / images)
            for s, images in zip(step.figures, rate.figures, strict=False)
        )
        status = step.status if step.status != "green" else rate.status
        found.append(Result(step.contestant, "epochs per hour", figures, status))
    return found


def seconds_per_load(case: Case) -> float:
    """Of one training batch, the median of a few; raises `UserError` without the data set."""
    made = case.setting
    if not made.data_dir:
        problem = Problem("CIFAR-10", "is not here", "rmploss data fetch cifar10")
        raise UserError("an epoch needs its images", [problem])
    data = DATASETS.make("cifar10", augment="standard")
    train = data.open(Path(made.data_dir), seed=0, T=made.T).train
    found = []
    for first in range(0, LOADS * made.batch, made.batch):
        began = time.perf_counter()
        torch.stack([train[Key(0, index)][0] for index in range(first, first + made.batch)])
        found.append(time.perf_counter() - began)
    return statistics.median(found)
