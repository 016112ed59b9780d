"""Summarize metrics.jsonl: last and best epoch, total times."""

from collections.abc import Sequence
from typing import Any

TIMES = ("train_s", "test_s", "train_cpu_s")
"""Fields of a metrics line that measure an epoch in seconds; a repeated run has other values.

train_s, test_s: wall-clock time.
train_cpu_s: CPU time of all threads of rank 0, which other work on the machine disturbs less. It
leaves out other ranks and the GPU.
"""
LATER = (
    "quantization_error_of_elements",
    "averaged_accuracy",
    "averaged_quantization_error",
)
"""Fields that runs of earlier versions, or of recipes without an average, lack."""


def summarize(metrics: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Last epoch, best accuracy, and the sum of each of `TIMES` that all lines have.

    metrics: the records of metrics.jsonl, one per epoch.
    """
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
        **{name: last[name] for name in LATER if name in last},
        **{
            name: round(sum(record[name] for record in metrics), 3)
            for name in TIMES
            if all(name in record for record in metrics)
        },
    }
