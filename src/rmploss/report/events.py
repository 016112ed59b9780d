"""Sentences about what happened to a run, from its events.jsonl."""

from collections.abc import Mapping
from typing import Any

ROUTINE = ("start", "execute")
"""Events of every run."""
SENTENCES = {
    "begin": "began with other weights",
    "resume": "resumed",
    "fork": "forked from another run",
    "failed": "stopped by an error",
    "interrupted": "stopped by a signal",
    "non-finite": "a number was NaN or infinite",
    "damaged": "went on without what is damaged",
    "loader lost": "a loader process was replaced",
    "waited": "lines waited for the disk",
    "begin again": "begun again",
}
HIDDEN = ("time", "event", "command", "samples", "versions", "environment")
"""Fields that are shown elsewhere, or only with `cat`."""


def notable(events: list[dict[str, Any]]) -> list[str]:
    """A sentence about every event that is not routine."""
    return [_sentence(event) for event in events if not _is_routine(event)]


def placement(events: list[dict[str, Any]]) -> dict[str, str]:
    """Where and how a run was executed last: the fields of its last "execute" event, as text."""
    last = next((e for e in reversed(events) if e.get("event") == "execute"), {})
    return {
        name.replace("_", " "): words(value)
        for name, value in last.items()
        if name not in HIDDEN and value not in ([], None)
    }


def words(value: object) -> str:
    """A value of JSON as text: "a, b", "name value, name value"."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {words(each)}" for name, each in value.items())
    if isinstance(value, list):
        return ", ".join(map(words, value))
    if value is None or isinstance(value, bool):
        return "–" if value is None else "yes" if value else "no"
    return str(value)


def _is_routine(event: Mapping[str, Any]) -> bool:
    """True for what happens in every run; a captured step is what was asked for."""
    return event.get("event") in ROUTINE or event.get("captured") is True


def _sentence(event: Mapping[str, Any]) -> str:
    if event.get("text"):
        return words(event["text"])
    kind = words(event.get("event"))
    fields = [
        f"{name.replace('_', ' ')} {words(value)}"
        for name, value in event.items()
        if name not in HIDDEN and value not in ([], None)
    ]
    return "; ".join([SENTENCES.get(kind, kind), *fields])
