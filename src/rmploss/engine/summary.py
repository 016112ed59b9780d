"""What a run came to, from its lines of metrics: for the run's folder, tables and reports."""

from collections.abc import Sequence
from typing import Any

TIMES = ("train_s", "test_s", "train_cpu_s")
"""Fields of a line that say how long an epoch took, not what came of it: they never repeat.

train_s, test_s: on the clock; train_cpu_s: of all threads of this process, which other work on the
machine disturbs less. With several ranks, or on a GPU, it is the main rank's host side alone.
"""


def summarize(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The last and the best epoch, and the time of all: what each of the lines holds of `TIMES`."""
    if not metrics:
        return {"epochs": 0}
    last = metrics[-1]
    best = max(metrics, key=lambda record: record["test_accuracy"])
    return {
        "epochs": last["epoch"],
        "last_accuracy": last["test_accuracy"],
        "best_accuracy": best["test_accuracy"],
        "best_epoch": best["epoch"],
        "quantization_error": last["quantization_error"],
        "firing_rate": last["firing_rate"],
        **{
            name: round(sum(record[name] for record in metrics), 3)
            for name in TIMES
            if all(name in record for record in metrics)
        },
    }
