"""Recordings in the official formats, for tests without the real data."""

import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rmploss.data.events import Events

HEADER = b"#!AER-DAT2.0\r\n# This is a raw AE data file - do not edit\r\n"

Rows = Sequence[tuple[int, int, int, int]]
"""Events as (microseconds, x, y, polarity: 1 ON)."""


def aedat(events: Rows, header: bytes = HEADER) -> bytes:
    """The bytes of an AEDAT 2.0 file."""
    pairs = [(x << 1 | y << 8 | 1 - p, t) for t, x, y, p in events]
    return header + np.array(pairs, ">u4").tobytes()


HEADER3 = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"


def packet3(content: bytes, *, kind: int, size: int, overflow: int = 0, source: int = 1) -> bytes:
    """A packet of AEDAT 3.1; kind: 1 for polarity events; size: of an event in bytes."""
    number = len(content) // size if size > 0 else 0
    head = struct.pack("<hhiiiiii", kind, source, size, 4, overflow, number, number, number)
    return head + content


def aedat3(events: Events) -> bytes:
    """A packet of polarity events, all valid, whose times have the same overflow."""
    rows = np.empty((len(events), 2), "<u4")
    rows[:, 0] = 1 | events.p << 1 | events.y << 2 | events.x << 17
    rows[:, 1] = events.t & (1 << 31) - 1
    return packet3(rows.tobytes(), kind=1, size=8, overflow=int(events.t[0]) >> 31)


def save_npz(path: Path, events: Events) -> None:
    """The arrays x, y, t, p."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, x=events.x, y=events.y, t=events.t, p=events.p)
