"""Rows of finished runs, with all results that a file of rows asks for."""

from dataclasses import replace

from rmploss.engine.rows import Row, begin_row
from rmploss.recipes import Recipe


def result_row(kind: str, recipe: Recipe, accuracy: float = 50.0, error: float = 0.2) -> Row:
    """The row of a recipe.

    accuracy: of the last epoch, in percent; the best one had one point more.
    error: the quantization error.
    """
    return replace(
        begin_row(kind, recipe, ""),
        last_accuracy=f"{accuracy}",
        best_accuracy=f"{accuracy + 1}",
        best_epoch="1",
        quantization_error=f"{error}",
        firing_rate="0.2",
        train_cpu_s="1.5",
    )
