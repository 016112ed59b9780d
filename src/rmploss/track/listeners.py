"""Several listeners of one run, and one in which an error ends no run."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rmploss.engine.listener import Listener
from rmploss.recipes import Recipe


class Several(Listener):
    """Passes everything on to several listeners, in their order."""

    def __init__(self, *listeners: Listener) -> None:
        self.listeners = listeners

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """A run begins or is resumed."""
        for each in self.listeners:
            each.begin(recipe, folder, epoch=epoch, device=device)

    def loading(self, what: str, done: int, total: int) -> None:
        """Units of a data set are prepared."""
        for each in self.listeners:
            each.loading(what, done, total)

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        """Batches of a phase are done."""
        for each in self.listeners:
            each.batch(phase, epoch, done, total, **numbers)

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is done."""
        for each in self.listeners:
            each.epoch(record)

    def note(self, text: str) -> None:
        """A remark for people."""
        for each in self.listeners:
            each.note(text)

    def end(self, summary: dict[str, Any]) -> None:
        """The run is finished."""
        for each in self.listeners:
            each.end(summary)

    def close(self) -> None:
        """Nothing more comes."""
        for each in self.listeners:
            each.close()


class Guarded(Listener):
    """A listener that may fail: its first error is told, then it is closed and gets nothing more.

    name: of it, for the message.
    inner: the listener.
    note: is told of the error, in one line.
    """

    def __init__(self, name: str, inner: Listener, note: Callable[[str], None]) -> None:
        self.name, self.inner, self._note = name, inner, note
        self.failed = False

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """A run begins or is resumed."""
        self._attempt(lambda: self.inner.begin(recipe, folder, epoch=epoch, device=device))

    def epoch(self, record: dict[str, Any]) -> None:
        """An epoch is done."""
        self._attempt(lambda: self.inner.epoch(record))

    def end(self, summary: dict[str, Any]) -> None:
        """The run is finished."""
        self._attempt(lambda: self.inner.end(summary))

    def close(self) -> None:
        """Nothing more comes."""
        self._attempt(self.inner.close, closing=True)

    def _attempt(self, call: Callable[[], None], *, closing: bool = False) -> None:
        if self.failed:
            return
        try:
            call()
        except (Exception, SystemExit) as error:
            self.failed = True
            reason = str(error).strip().partition("\n")[0]
            what = f"{type(error).__name__}: {reason}" if reason else type(error).__name__
            self._note(f"warning: {self.name} gets nothing more ({what}); the run goes on")
            if not closing:  # what it has written so far is kept
                with suppress(Exception, SystemExit):
                    self.inner.close()
