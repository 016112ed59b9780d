"""The callbacks of a run, for a terminal or a program; `Listener` ignores them all."""

from pathlib import Path
from typing import Any

from rmploss.recipes import Recipe


class Listener:
    """Callbacks that do nothing; subclasses show a run."""

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """A run begins, or is resumed after `epoch` completed epochs."""

    def loading(self, what: str, done: int, total: int) -> None:
        """`done` of `total` units of a data set are prepared."""

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        """`done` of `total` batches of a phase, "train" or "test", are done; epoch is from 1."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is done; record: its line of metrics.jsonl."""

    def note(self, text: str) -> None:
        """A remark for people, one line."""

    def end(self, summary: dict[str, Any]) -> None:
        """The run is finished; summary: its result.json."""

    def close(self) -> None:
        """Nothing more comes, also after an error."""
