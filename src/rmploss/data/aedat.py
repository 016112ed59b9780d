"""AEDAT 2.0 recordings of a DVS128 camera (jAER), 128x128 pixels.

Header lines begin with "#", the first is "#!AER-DAT2.0"; each event then has 8 bytes, big-endian:

    32 bits   address:  bit 0 polarity (set = OFF), bits 1-7 x, bits 8-14 y, the others 0
    32 bits   time, microseconds, unsigned (recordings beyond 2^31 exist), never decreasing

x and y are returned as the camera wrote them. Which direction is up depends on how the camera was
mounted: each data set maps addresses to columns and rows.
"""

from pathlib import Path

import numpy as np

from rmploss.data.events import Events, recording_error

SENSOR = (128, 128)
_FIRST_LINE = b"#!AER-DAT2.0"


def read_aedat(path: Path) -> Events:
    """The events of a file. Raises `DataError`, with the byte offset, for a malformed file."""
    data = path.read_bytes()
    start = _header_length(data, path)
    if (len(data) - start) % 8:
        whole = len(data) - (len(data) - start) % 8
        raise recording_error(
            path, whole, f"the last event is cut off: {len(data) - whole} of its 8 bytes"
        )
    if len(data) == start:
        raise recording_error(path, start, "the file holds no events")
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    for wrong, why in (
        (address >= 1 << 15, "an address beyond 128x128 pixels and a polarity (bits 0-14)"),
        (np.diff(t, prepend=t[0]) < 0, "time runs back"),
    ):
        if wrong.any():
            event = int(wrong.argmax())
            values = f"event {event}: address {address[event]:#x}, time {t[event]} us"
            raise recording_error(path, start + 8 * event, f"{why} ({values})")
    return Events(t=t, x=address >> 1 & 127, y=address >> 8 & 127, p=1 - (address & 1))


def _header_length(data: bytes, path: Path) -> int:
    """The offset of the first event. No address begins with "#" (0x23): its bit 15 is clear."""
    if not data.startswith(_FIRST_LINE):
        raise recording_error(
            path, 0, f"begins with {data[:12]!r}, not {_FIRST_LINE!r}: not AEDAT 2.0"
        )
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise recording_error(path, start, "a header line without end")
        start = end + 1
    return start
