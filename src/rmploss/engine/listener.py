"""What training tells whoever listens: a terminal, a program, nobody."""

from pathlib import Path
from typing import Any

from rmploss.recipes import Recipe


class Listener:
    """Hears of a run; does nothing. Subclasses show it."""

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """A run starts or goes on after `epoch` completed epochs."""

    def loading(self, what: str, done: int, total: int) -> None:
        """Data is being prepared."""

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        """A batch of "train" or "test" is done in epoch `epoch` (from 1)."""

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is done; its line of metrics.jsonl."""

    def note(self, text: str) -> None:
        """Something worth a line."""

    def end(self, summary: dict[str, Any]) -> None:
        """The run is done."""
