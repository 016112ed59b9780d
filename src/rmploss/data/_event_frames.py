"""The options of frames that all data sets of a user's recordings share, and the frames."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from rmploss.data.events import Events, Frames, Integrate, event_problems, to_frames
from rmploss.data.recordings import extent, read_recording
from rmploss.errors import DataError, Problem, UserError

Window = tuple[int, int]
"""(start, stop) in microseconds: the events with start <= t < stop."""
LOOKED_AT = 8
"""The most recordings that are read for the note on a camera that seems to be a smaller one."""
USED = 0.75
"""The share of the sensor's columns, and of its rows, beyond which some recording has events."""
MOST_WINDOWS = 200_000
"""The largest number of windows of one recording: 5.5 hours with one every 100 ms."""


@dataclass(frozen=True, kw_only=True)
class EventFrames:
    """How recordings become T frames.

    sensor: (W, H) of the camera in pixels.
    size: side of the frames; none: those of the sensor.
    frames: 0/1 or counts.
    integrate: "number" gives each frame as many events, "time" the same duration.
    polarity: "two" channels for OFF and ON, or "one" for both.
    augment: flip and roll training recordings; not for what has a direction.
    """

    sensor: tuple[int, ...] = (128, 128)
    size: int | None = 48
    frames: Frames = "binary"
    integrate: Integrate = "number"
    polarity: Literal["two", "one"] = "two"
    augment: bool = True

    temporal: ClassVar[bool] = True

    def frame_problems(self) -> list[Problem]:
        """Those of these options."""
        problems = []
        if len(self.sensor) != 2 or min(self.sensor) < 1:
            where = f"data-set.sensor = {self.sensor}"
            problems.append(Problem(where, "must be (W, H) in pixels", "(128, 128)"))
        if self.size is not None and self.size < 1:
            problems.append(Problem(f"data-set.size = {self.size}", "must be at least 1", "48"))
        return problems

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, size, size)`, channel 0 OFF and 1 ON; one channel with polarity="one"."""
        W, H = self.sensor if self.size is None else (self.size, self.size)
        return (T, 2 if self.polarity == "two" else 1, H, W)

    def read(self, path: Path, T: int) -> Tensor:
        """A recording as the test split prepares it, float32 `[T, C, H, W]`.

        Raises `DataError` for a file that cannot be read.
        """
        return self.stored(path, T).float()

    def stored(self, path: Path, T: int) -> Tensor:
        """The frames of a recording, uint8 `[T, C, H, W]`."""
        return self.cut(self.events(path), [None], T)[0]

    def events(self, path: Path) -> Events:
        """The events of a file. Raises `DataError`, see `checked`."""
        W, H = self.sensor
        return self.checked(path, read_recording(path, (H, W)))

    def sensor_notes(self, files: Sequence[Path]) -> list[str]:
        """A note if the camera seems to be smaller than `sensor`, which few formats hold.

        files: the recordings, of which up to `LOOKED_AT` are read, fewer if one fills the sensor.
        """
        W, H = self.sensor
        most_rows = most_columns = 0
        some = files[:: -(-len(files) // LOOKED_AT) or 1]
        for path in some:
            try:
                rows, columns = extent(self.events(path))
            except UserError:
                return []  # the error when the data are opened
            most_rows, most_columns = max(rows, most_rows), max(columns, most_columns)
            if most_rows > USED * H or most_columns > USED * W:
                return []
        if not some:
            return []
        taken = f"the camera is taken for one of {W}x{H} pixels (data.sensor)"
        seen = f"no event of {len(some)} recordings, first {some[0]}, lies beyond the first"
        seen += f" {most_columns}x{most_rows}"
        fix = f"--set 'data.sensor=({most_columns},{most_rows})' if the camera is that small"
        return [f"{taken}, but {seen}: {fix}"]

    def checked(self, where: object, events: Events) -> Events:
        """The events of a whole recording, which can be cut into windows and frames.

        where: for the error: a file.
        Raises `DataError` for events outside of the sensor or not in order of time: a window of
        unsorted events would lack some.
        """
        W, H = self.sensor
        problems = event_problems(events, (H, W))
        if problems:
            rows, columns = extent(events)
            fix = f"data.sensor=({max(W, columns)},{max(H, rows)})"
            raise DataError(
                "cannot make frames of these events",
                [
                    Problem(f"{where}: {p.where}", p.what, fix if "outside" in p.what else p.fix)
                    for p in problems
                ],
            )
        return events

    def cut(self, events: Events, windows: Sequence[Window | None], T: int) -> Tensor:
        """The frames of windows, uint8 `[N, T, C, H, W]`.

        events: of the whole recording, from `checked`.
        windows: None: from the first event to the last.
        T: frames of a window.
        """
        W, H = self.sensor
        merged = self._merged(events)
        shape = self.shape(T)
        frames = np.empty((len(windows), *shape), np.uint8)
        for index, window in enumerate(windows):
            made = to_frames(
                merged if window is None else merged.between(*window),
                T,
                sensor=(H, W),
                size=self.size,
                frames=self.frames,
                integrate=self.integrate,
                window=window,
            )
            frames[index] = made[:, : shape[1]]
        return torch.from_numpy(frames)

    def _merged(self, events: Events) -> Events:
        """The events, all in channel 0 with polarity="one"."""
        if self.polarity == "two":
            return events
        return Events(events.t, events.x, events.y, np.zeros_like(events.p))


@dataclass(frozen=True, kw_only=True)
class WindowedFrames(EventFrames):
    """How recordings, or windows of them, become T frames.

    sensor ... augment: see `EventFrames`.
    window_ms: the duration of a sample in milliseconds; none: a whole recording is one sample.
    stride_ms: from one training window to the next; none: window_ms. Test windows do not overlap.
    """

    window_ms: int | None = None
    stride_ms: int | None = None

    def frame_problems(self) -> list[Problem]:
        """Those of these options."""
        problems = super().frame_problems()
        for field, example in (("window_ms", "500"), ("stride_ms", "100")):
            value = getattr(self, field)
            if value is not None and value < 1:
                where = f"data-set.{field} = {value}"
                problems.append(Problem(where, "must be at least 1", example))
        if self.stride_ms is not None and self.window_ms is None:
            where = f"data-set.stride_ms = {self.stride_ms}"
            problems.append(Problem(where, "is of windows", "data.window_ms=500"))
        return problems

    def read_windows(self, path: Path, T: int) -> Iterator[Tensor]:
        """Every window of a recording, each float32 `[T, C, H, W]`; the whole one without windows.

        Raises `DataError` for a file that cannot be read.
        """
        events = self.events(path)
        for window in self._tested(path, events):
            yield self.cut(events, [window], T)[0].float()

    def stored(self, path: Path, T: int) -> Tensor:
        """The frames of a recording or its first window, uint8 `[T, C, H, W]`."""
        events = self.events(path)
        return self.cut(events, self._tested(path, events)[:1], T)[0]

    def _tested(self, path: Path, events: Events) -> Sequence[Window | None]:
        """The windows of a recording as the test split has them."""
        if self.window_ms is None:
            return [None]
        return self.windows(path, events, overlap=False)

    def windows(
        self, path: Path, events: Events, *, overlap: bool, within: Window | None = None
    ) -> list[Window]:
        """The windows of a recording from its first event on, with `window_ms`.

        path: for the error.
        events: from `checked`.
        overlap: True: one every `stride_ms`; False: one after the other.
        within: only this part of it.
        Raises `DataError` if it is shorter than a window, or has more than `MOST_WINDOWS`.
        """
        assert self.window_ms is not None
        start, stop = within or (int(events.t[0]), int(events.t[-1]) + 1)
        length = 1000 * self.window_ms
        step = 1000 * (self.stride_ms or self.window_ms) if overlap else length
        if stop - start < length:
            what = f"lasts {(stop - start) / 1000:.0f} ms, less than a window"
            fix = f"data.window_ms={max(1, (stop - start) // 1000)} or less, or remove it"
            raise DataError("recordings too short", [Problem(str(path), what, fix)])
        count = (stop - start - length) // step + 1
        if count > MOST_WINDOWS:
            what = f"from {start} to {stop} us there are {count} windows, more than {MOST_WINDOWS}"
            where = "data.stride_ms" if overlap and self.stride_ms else "data.window_ms"
            fix = f"times in microseconds, or {where}={(stop - start) // (1000 * MOST_WINDOWS) + 1}"
            raise DataError("recordings too long", [Problem(str(path), what, fix)])
        return [(at, at + length) for at in range(start, stop - length + 1, step)]
