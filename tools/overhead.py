"""What everything around the bare training step costs, in CPU time of one run:

    RMPLOSS_DATA=/data python tools/overhead.py --steps 40

The run is the paper's ResNet20 on CIFAR-10 (T = 4, full width, batch 32), on one thread. Each part
is timed in the run itself, without the parts inside it, so that the noise of a shared machine
falls on all of them alike. What does not come in every step is spread over as many as it serves.
"""

import argparse
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch

from rmploss import recipes
from rmploss.engine import loop, manifest, run_health, saving, train
from rmploss.engine.execution import SAVE_MINUTES, Execution
from rmploss.engine.health import PROBE_STEPS
from rmploss.engine.step import TrainingStep
from rmploss.engine.tally import Watch

STEPS_OF_AN_EPOCH = 50_000 // 32
PROBED = 10
"""Steps between two looks at the health, here."""

times: defaultdict[str, list[float]] = defaultdict(list)
"""The CPU seconds of every call of a part, without the parts inside it."""
_inside: list[float] = []


def timed(owner: Any, name: str, part: str) -> None:
    """Time all calls of `owner.name` as a part."""
    original: Callable[..., Any] = getattr(owner, name)

    def wrapped(*arguments: Any, **options: Any) -> Any:
        began = time.process_time()
        _inside.append(0.0)
        try:
            return original(*arguments, **options)
        finally:
            whole = time.process_time() - began
            times[part].append(whole - _inside.pop())
            if _inside:
                _inside[-1] += whole

    setattr(owner, name, wrapped)


def measure(steps: int) -> None:
    """Train for so many steps with all parts timed."""
    torch.set_num_threads(1)
    run_health.PROBE_STEPS = PROBED
    timed(TrainingStep, "__call__", "step")
    timed(loop.Loop, "_step", "filling of the batch, rate, counters")
    timed(Watch, "after_step", "reading of the sums")
    timed(loop.Loop, "_read", "check of the sums, health of the loss")
    timed(loop, "probe", "look at the firing rates")
    timed(saving.Saving, "save_or_stop", "clock and signals")
    timed(saving.Saving, "save", "checkpoint")
    timed(loop.Loop, "_train", "rest of the loop, loading included")
    timed(loop.Loop, "_evaluate", "test")
    timed(loop.Loop, "_finish", "analysis")
    timed(manifest, "write", "manifest")
    timed(train, "check", "check of the recipe, with its rehearsal")
    size = 32
    recipe = recipes.get("cifar10-resnet20-rmp").but(
        epochs=1, batch_size=size, train_samples=steps * size, test_samples=size
    )
    with tempfile.TemporaryDirectory() as runs:
        train.train(recipe, Path(runs), Execution(device="cpu", workers=0))


def rows(steps: int) -> list[tuple[str, float]]:
    """The parts, and the CPU seconds of each per step; the bare step first."""
    step = median(times["step"])
    looks = sorted(times["look at the firing rates"])[-(steps // PROBED) :]
    each = [
        ("filling of the batch, rate, counters", 1),
        ("reading of the sums", 1),
        ("check of the sums, health of the loss", 1),
        ("clock and signals", 1),
    ]
    return [
        ("step", step),
        *((part, median(times[part]) / every) for part, every in each),
        ("look at the firing rates", median(looks) / PROBE_STEPS),
        ("checkpoints by the clock", median(times["checkpoint"]) * step / (60 * SAVE_MINUTES)),
        ("checkpoint of the epoch", median(times["checkpoint"]) / STEPS_OF_AN_EPOCH),
        (
            "rest of the loop, loading included",
            times["rest of the loop, loading included"][0] / steps,
        ),
    ]


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=40, help="at least twenty")
    steps = parser.parse_args().steps
    measure(steps)
    found = rows(steps)
    (_, step), *around = found
    print("| part | ms a step | of the step |\n|---|---:|---:|")
    for part, seconds in [*found, ("all around the step", sum(s for _, s in around))]:
        print(f"| {part} | {1e3 * seconds:.3f} | {seconds / step:.3%} |")
    for part in ("check of the recipe, with its rehearsal", "manifest"):
        print(f"once in a run: {part}, {sum(times[part]):.2f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
