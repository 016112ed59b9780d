"""The numbers of an epoch under the names of curves: "test/accuracy", "layers/lif1 firing_rate"."""

from collections.abc import Mapping
from typing import Any

GROUPS = ("train", "test", "averaged")
"""The first words of fields that are the groups of curves."""
PLACES = {
    "lr": "schedule/lr",
    "lambda": "schedule/lambda",
    "quantization_error": "test/quantization_error",
    "quantization_error_of_elements": "test/quantization_error_of_elements",
    "firing_rate": "test/firing_rate",
    "train_s": "seconds/train",
    "test_s": "seconds/test",
    "train_cpu_s": "seconds/train_cpu",
}
POSITION = ("epoch", "step")


def scalars(record: Mapping[str, Any]) -> dict[str, float]:
    """The curves of a line of metrics.jsonl, without its position; what is no number is left out.

    record: of one epoch; accuracies in percent, times in seconds, the rest dimensionless.
    """
    found = {
        _place(name): float(value)
        for name, value in record.items()
        if name not in POSITION and isinstance(value, int | float)
    }
    for layer, numbers in record.get("layers", {}).items():
        found |= {f"layers/{layer} {name}": float(value) for name, value in numbers.items()}
    return found


def _place(name: str) -> str:
    """ "train_loss" -> "train/loss"."""
    group, _, rest = name.partition("_")
    return PLACES.get(name) or (f"{group}/{rest}" if group in GROUPS and rest else f"run/{name}")
