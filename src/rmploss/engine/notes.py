"""What a run says of itself, to its listener and in events.jsonl."""

from collections.abc import Mapping
from typing import Any

from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder


class Notes:
    """The remarks of one run on this rank.

    listener: is notified of each.
    folder: gets the events; None: none are written, as before the first checkpoint and on the
        ranks above 0.
    """

    folder: RunFolder | None = None

    def __init__(self, listener: Listener) -> None:
        self.listener = listener

    def log(self, kind: str, **fields: Any) -> None:
        """Write an event."""
        if self.folder is not None:
            self.folder.log_event(kind, **fields)

    def warn(self, text: str, fields: Mapping[str, Any]) -> None:
        """Warn of a network that does not learn."""
        self.log("health", **fields, text=text)
        self.listener.note(f"warning: {text}")

    def loader_lost(self, what: str) -> None:
        """Say that a loader process was replaced."""
        self.log("loader lost", what=what)
        self.listener.note(what)

    def captured(self, what: str, reason: str) -> None:
        """Record that a function runs as a CUDA graph; or why it does not, if there is a reason."""
        outcome = {"reason": reason} if reason else {}
        self.log("capture", what=what, captured=not reason, **outcome)
        if reason:
            self.listener.note(f"the {what} runs eagerly, not as a CUDA graph: {reason}")
