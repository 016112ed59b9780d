"""The line of metrics.jsonl that an epoch leaves."""

from collections.abc import Mapping
from typing import Any

from rmploss.engine.checkpoint import Counters
from rmploss.engine.evaluate import Evaluation


def epoch_record(
    at: Counters,
    schedule: Mapping[str, float],
    means: Mapping[str, float],
    results: list[Evaluation],
    seconds: Mapping[str, float],
) -> dict[str, Any]:
    """The record of an epoch.

    at: the position at its end.
    schedule: "lr" of its last step and "lambda".
    means: of the training losses and the accuracy, over its samples (`Terms.means`).
    results: of the test, with the trained weights and then with their average if there is one.
    seconds: its times, see `run_summary.TIMES`.
    """
    result, *averaged = results
    return {
        "epoch": at.epoch,
        "step": at.step,
        **schedule,
        **means,
        "test_accuracy": result.accuracy,
        "test_ce": result.loss,
        "quantization_error": result.quantization_error,
        "quantization_error_of_elements": result.quantization_error_of_elements,
        "firing_rate": result.firing_rate,
        "layers": {
            layer.name: {
                "quantization_error": layer.quantization_error,
                "firing_rate": layer.firing_rate,
            }
            for layer in result.layers
        },
        **(_averaged_fields(averaged[0]) if averaged else {}),
        **{name: round(value, 3) for name, value in seconds.items()},
    }


def _averaged_fields(result: Evaluation) -> dict[str, float]:
    return {
        "averaged_accuracy": result.accuracy,
        "averaged_ce": result.loss,
        "averaged_quantization_error": result.quantization_error,
        "averaged_firing_rate": result.firing_rate,
    }
