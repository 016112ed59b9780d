"""The data of a run: recorded by every execution, and compared when it is resumed or evaluated."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from rmploss.data import Samples, fingerprint
from rmploss.engine.run import recipe_hash
from rmploss.errors import Problem, UserError

FORMAT = 1
"""Changed when the same data get another fingerprint: then nothing is compared."""
SPLITS = ("train", "test")


def describe(name: str, train: Samples, test: Samples) -> dict[str, Any]:
    """The record of a run's data, with its own SHA-256.

    name: of the data set.
    train, test: its splits, as far as the run uses them.
    """
    splits = {"train": fingerprint(train), "test": fingerprint(test)}
    content = {"format": FORMAT, "name": name, **splits}
    return {**content, "sha256": recipe_hash(content)}


def recorded(events: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The newest sound record in the events of a run; None: there is none that can be compared."""
    for event in reversed(events):
        data = event.get("data")
        if event.get("event") != "execute" or not isinstance(data, dict):
            continue
        content = {key: value for key, value in data.items() if key != "sha256"}
        if data.get("sha256") == recipe_hash(content) and data.get("format") == FORMAT:
            return data
    return None


def hash_of(data: Mapping[str, Any], split: str) -> str:
    """The first digits of the hash of one split in a record."""
    return recipe_hash(data[split])[:12]


def changes(
    before: Mapping[str, Any], now: Mapping[str, Any], splits: Sequence[str] = SPLITS
) -> dict[str, str]:
    """What differs between two records, by split: `{"train": "1437 samples are now 1400"}`."""
    words = {split: _change(before[split], now[split]) for split in splits}
    return {split: change for split, change in words.items() if change}


def _change(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if before["samples"] != now["samples"]:
        return f"{before['samples']} samples are now {now['samples']}"
    old, new = before["classes"] or {}, now["classes"] or {}
    for label in [*old, *new]:
        if old.get(label, 0) != new.get(label, 0):
            return f"{old.get(label, 0)} samples of class {label} are now {new.get(label, 0)}"
    if before["labels"] != now["labels"]:
        return "as many samples, with other labels or in another order"
    if None not in (before["content"], now["content"]) and before["content"] != now["content"]:
        return "samples of other content, with the same labels"
    return ""


def require_same(where: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Raise `UserError` if the data of a run are not those with which it began.

    where: the run folder.
    before, now: the records.
    """
    found = changes(before, now)
    if found:
        fork = f"--fork {shlex.quote(where)}"
        fix = f"--data-dir with the data of the run, or {fork} to train on with these"
        problems = [Problem(f"{now['name']}, {split}", what, fix) for split, what in found.items()]
        raise UserError(f"the data are not those of {where}", problems)
