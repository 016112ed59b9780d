"""Whole training as `rmploss train` runs it: images per second, and the share of the test.

    train (images/s)        training images over the seconds of an epoch before its test: data,
                            augmentation, steps, checks
    test (share of epoch)   seconds of the test over those of the epoch, dimensionless

The paper's recipe of the network is trained on CIFAR-10 with T, batch, width and precision of the
conditions, on CUDA on all images, on a CPU on `CPU_STEPS` batches. The first epoch, in which
kernels are compiled and steps captured, does not count. The contestants run one after the other.
"""

import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rmploss import recipes, store
from rmploss.engine.execution import Execution
from rmploss.engine.train import train
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe
from rmploss_bench.conditions import Conditions
from rmploss_bench.contestants import contestant
from rmploss_bench.timing import Result, Ticker, admitted
from rmploss_bench.workload import Workload

USUAL = ("rmploss+rmp", "rmploss+rmp-captured", "rmploss", "rmploss-captured")
"""The contestants: `rmploss train` with and without RMP-Loss, eager and captured."""
CPU_STEPS, CPU_TEST = 10, 2
"""Number of training and test batches of an epoch on a CPU."""
RATE, SHARE = "train (images/s)", "test (share of epoch)"


def whole_training(
    workload: Workload, names: list[str], repeats: int, tick: Ticker
) -> list[Result]:
    """Both figures of each contestant, one per epoch, behind the gate of training.

    workload: network and batch.
    names: contestants of `USUAL`.
    repeats: epochs that count.
    tick: called with the progress of the work.
    Raises `UserError` where CIFAR-10 is missing or the network has no recipe on it.
    """
    conditions = workload.conditions
    made = {name: recipe_of(conditions, name, epochs=repeats + 1) for name in names}
    runners, status = admitted(workload, names, train=True, tick=tick)
    green = [*runners]
    runners.clear()  # the memory is needed
    rates: dict[str, tuple[float, ...]] = {}
    shares: dict[str, tuple[float, ...]] = {}
    for index, name in enumerate(green):
        tick(f"training {name}", index, len(green))
        epochs = _train(made[name], conditions, captured=contestant(name).captured)
        images = _images(made[name])
        rates[name] = tuple(images / line["train_s"] for line in epochs)
        shares[name] = tuple(line["test_s"] / (line["train_s"] + line["test_s"]) for line in epochs)
    return [
        Result(name, what, found.get(name, ()), status[name])
        for what, found in ((RATE, rates), (SHARE, shares))
        for name in names
    ]


def recipe_of(conditions: Conditions, name: str, *, epochs: int) -> Recipe:
    """The recipe that a contestant trains.

    conditions: network, T, batch, width, precision, data.
    name: of the contestant.
    epochs: of the run.
    Raises `UserError` for a contestant that is not of `USUAL`, a network without a recipe on
    CIFAR-10, and without the images.
    """
    rmp = "-rmp" * ("+rmp" in name)
    wanted = f"cifar10-{conditions.network}{rmp}"
    problems = []
    if name not in USUAL:
        problems.append(Problem(f"--only {name}", "is not trained by rmploss", " ".join(USUAL)))
    if not conditions.data_dir:
        problems.append(Problem("CIFAR-10", "is not here", "rmploss data fetch cifar10"))
    if wanted not in recipes.RECIPES:
        problems.append(Problem(f"--network {conditions.network}", "has no recipe on CIFAR-10"))
    if problems:
        raise UserError("cannot measure a whole training", problems)
    recipe = recipes.get(wanted)
    fewer: dict[str, Any] = {}
    if not conditions.on_cuda:
        fewer = {
            "train_samples": max(10, CPU_STEPS * conditions.batch),
            "test_samples": max(10, CPU_TEST * conditions.batch),
        }
    return recipe.but(
        T=conditions.T,
        batch_size=conditions.batch,
        epochs=epochs,
        network=recipe.network.but(width=conditions.width),
        amp="bf16" if conditions.precision == "bf16" else "off",
        **fewer,
    )


def _images(recipe: Recipe) -> int:
    """The training images of an epoch: full batches only."""
    images = recipe.train_samples or 50_000
    return images - images % recipe.batch_size


def _train(recipe: Recipe, conditions: Conditions, *, captured: bool) -> list[Mapping[str, Any]]:
    """The metrics of the epochs after the first."""
    execution = Execution(
        data_dir=Path(conditions.data_dir),
        device=conditions.device,
        capture="on" if captured else "off",
    )
    folder = Path(tempfile.gettempdir()) / f"rmploss-bench-{os.getpid()}"
    try:
        path = train(recipe, folder, execution)
        lines = (path / "metrics.jsonl").read_text().splitlines()
    finally:
        store.remove_tree(folder)
    return [json.loads(line) for line in lines[1:]]
