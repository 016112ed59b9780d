"""Events of a dynamic vision sensor, and their integration into frames.

An event (t, x, y, p) reports that at time t the logarithm of the light at pixel (x, y) has risen
(p = 1, ON) or fallen (p = 0, OFF) by one step. Frame i of T is, per pixel and polarity,

    count:   n[i, p, y, x] = number of events with that p, y, x in part i
    binary:  min(n, 1)

Channel 0 is OFF and channel 1 is ON: the index is the polarity itself.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from rmploss.errors import DataError, Problem, UserError

LONGEST_US = 1 << 50
"""A recording lasts less than so many microseconds (35 years): then T times a time fits int64."""
Frames = Literal["binary", "count"]
Integrate = Literal["number", "time"]


@dataclass(frozen=True, eq=False)
class Events:
    """A recording: four arrays int64 `[N]`.

    t: time in microseconds, never decreasing.
    x, y: column and row, from the left and from the top.
    p: polarity, 1 ON, 0 OFF.
    """

    t: np.ndarray
    x: np.ndarray
    y: np.ndarray
    p: np.ndarray

    def __len__(self) -> int:
        return len(self.t)

    def between(self, start: int, stop: int) -> "Events":
        """The events with start <= t < stop, in microseconds."""
        first, last = np.searchsorted(self.t, (start, stop))
        part = slice(first, last)
        return Events(self.t[part], self.x[part], self.y[part], self.p[part])


def to_frames(
    events: Events,
    T: int,
    *,
    sensor: tuple[int, int],
    size: int | None = None,
    frames: Frames = "binary",
    integrate: Integrate = "number",
    window: tuple[int, int] | None = None,
) -> np.ndarray:
    """T frames, uint8 `[T, 2, H, W]`; counts above 255 stay at 255.

    events: in order of time.
    T: the number of frames, at least 1.
    sensor: (H, W) of the sensor; all events lie within.
    size: side of the square frames, by nearest neighbor, so that 0/1 stays 0/1; None: the sensor's.
    frames: "binary" or "count".
    integrate: "number" gives every frame the same number of events (up to one), "time" the same
        duration.
    window: (start, stop) in microseconds: only events with start <= t < stop count, and "time"
        divides this duration; None: from the first to the last event, both included.

    Frames without events are 0. Raises `UserError` for an impossible T or window, and for events
    outside of the sensor or not in order of time.
    """
    H, W = sensor
    _check(events, T, sensor, window)
    if window is not None:
        events = events.between(*window)
    part = _by_number(len(events), T) if integrate == "number" else _by_time(events, T, window)
    pixel = ((part * 2 + events.p) * H + events.y) * W + events.x
    counts = np.bincount(pixel, minlength=T * 2 * H * W).reshape(T, 2, H, W)
    if size is not None:
        counts = counts[:, :, _nearest(H, size)][..., _nearest(W, size)]
    return np.minimum(counts, 1 if frames == "binary" else 255).astype(np.uint8)


def _check(events: Events, T: int, sensor: tuple[int, int], window: tuple[int, int] | None) -> None:
    """Raise `UserError` for what would put events into other frames or pixels than theirs."""
    problems = []
    if T < 1:
        problems.append(Problem(f"T = {T}", "must be at least 1"))
    if window is not None and not window[0] < window[1]:
        problems.append(Problem(f"window = {window}", "must be (start, stop) with start < stop"))
    problems += event_problems(events, sensor)
    if problems:
        raise UserError("cannot make frames of these events", problems)


def event_problems(events: Events, sensor: tuple[int, int]) -> list[Problem]:
    """What would put events into other windows, frames or pixels than theirs.

    events: of a whole recording, or of a part.
    sensor: (H, W) of the sensor.
    """
    problems = []
    limits = {"x": sensor[1], "y": sensor[0], "p": 2}
    for field, limit in limits.items():
        values = getattr(events, field)
        wrong = (values < 0) | (values >= limit)
        if wrong.any():
            event = int(wrong.argmax())
            what = f"event {event}: {values[event]} is outside of 0 to {limit - 1}"
            problems.append(Problem(f"events.{field}", what, "give the sensor's (H, W)"))
    back = events.t[1:] < events.t[:-1]  # a difference may not fit int64
    if back.any():
        event = int(back.argmax()) + 1
        what = f"event {event}: time runs back from {events.t[event - 1]} to {events.t[event]} us"
        problems.append(Problem("events.t", what, "sort the events by time"))
    elif len(events) and int(events.t[-1]) - int(events.t[0]) >= LONGEST_US:
        what = f"from {events.t[0]} to {events.t[-1]} us is 35 years or more"
        problems.append(Problem("events.t", what, "give times in microseconds"))
    return problems


def recording_error(path: Path, offset: int, why: str) -> DataError:
    """The error of a recording that is malformed at a byte offset."""
    where = f"{path}, byte {offset}"
    return DataError("a damaged recording", [Problem(where, why, "put the original file there")])


def unreadable(path: Path, why: str, fix: str = "put the original file there") -> DataError:
    """The error of a file that is no recording."""
    return DataError("a recording cannot be read", [Problem(str(path), why, fix)])


def _by_number(n: int, T: int) -> np.ndarray:
    """The frame of each of n events, int64 `[n]`: i * T // n."""
    return np.arange(n) * T // max(n, 1)


def _by_time(events: Events, T: int, window: tuple[int, int] | None) -> np.ndarray:
    """The frame of each event, int64 `[N]`: (t - start) * T // (stop - start)."""
    if len(events) == 0:
        return np.zeros(0, dtype=np.int64)
    start, stop = window or (int(events.t[0]), int(events.t[-1]) + 1)
    return (events.t - start) * T // (stop - start)


def _nearest(n: int, size: int) -> np.ndarray:
    """The source pixel of each of `size` pixels: floor(i * n / size), as torch's "nearest"."""
    return np.arange(size) * n // size
