"""The lines of metrics.jsonl and events.jsonl: how they are written, and which ones are sound."""

import json
import math
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NoReturn


def to_json(value: Any, **options: Any) -> str:
    r"""A value as strict JSON in one line, without NaN and infinities.

    A byte of a file's name that is no UTF-8 becomes JSON's escape (\udce9): it is read as it was.
    """
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, **options)
    return text.encode(errors="backslashreplace").decode()


def event_line(kind: str, **fields: Any) -> str:
    """The line of an event: the time (UTC), the kind, the fields; see `RunFolder.log_event`."""
    strange: dict[str, str] = {}
    fields = finite(fields, "", strange)
    if strange:
        fields["non_finite"] = strange
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return to_json({"time": now, "event": kind, **fields})


def finite(value: Any, where: str, strange: dict[str, str]) -> Any:
    """A value with None for each NaN or infinity; `strange` gets them by their place."""
    match value:
        case float() if not math.isfinite(value):
            strange[where] = str(value)
            return None
        case Mapping():
            return {
                key: finite(part, f"{where}.{key}" if where else key, strange)
                for key, part in value.items()
            }
        case list() | tuple():
            return [finite(part, f"{where}.{i}", strange) for i, part in enumerate(value)]
    return value


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its fields of time, whose names end in "_s" or "seconds"."""
    return {key: value for key, value in record.items() if not key.endswith(("_s", "seconds"))}


def parse_line(line: str) -> dict[str, Any] | None:
    """The record in a line of metrics.jsonl or events.jsonl; None if it holds none."""
    try:
        record = json.loads(line, parse_constant=_refuse, parse_float=_finite)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def is_event(record: Mapping[str, Any]) -> bool:
    """True if a record names its event, and its other known fields have their types."""
    kinds = {"event": str, "time": str, "environment": dict, "command": list, "rejected": list}
    kinds |= {"inexact": list, "step": int, "epoch": int}
    return "event" in record and all(isinstance(record.get(k, t()), t) for k, t in kinds.items())


def is_metrics(record: Mapping[str, Any]) -> bool:
    """True if a record has a whole epoch and step, and numbers, words or nothing elsewhere."""
    when = (record.get("epoch"), record.get("step"))
    layers = record.get("layers", {})
    rest = [value for key, value in record.items() if key != "layers"]
    return (
        all(type(value) is int and 0 <= value < 1 << 62 for value in when)
        and all(map(_is_plain, rest))
        and _is_number(record.get("test_accuracy", 0.0))
        and all(record.get(key) is None or _is_number(record[key]) for key in _NUMBERS)
        and isinstance(layers, dict)
        and all(
            isinstance(layer, dict) and all(v is None or _is_number(v) for v in layer.values())
            for layer in layers.values()
        )
    )


_NUMBERS = (
    "lr", "lambda", "train_loss", "train_ce", "train_regularizer", "test_ce",
    "quantization_error", "firing_rate", "train_s", "test_s", "train_cpu_s",
)  # fmt: skip


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | list | dict) or _is_number(value)


def _finite(word: str) -> float:
    """The number; `ValueError` for 1e999, which Python reads as infinity."""
    number = float(word)
    return number if math.isfinite(number) else _refuse(word)


def _refuse(word: str) -> NoReturn:
    raise ValueError(f"{word} is no JSON")
