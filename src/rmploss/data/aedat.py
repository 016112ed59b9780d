"""AEDAT 2.0 recordings of a DVS128 camera (jAER), 128x128 pixels.

Lines that begin with "#", the first of them "#!AER-DAT2.0"; then 8 bytes an event, big-endian:

    32 bits   address:  bit 0 polarity (set = OFF), bits 1-7 x, bits 8-14 y, the others 0
    32 bits   time, microseconds, without sign (recordings beyond 2^31 exist), never running back

x and y are returned as the camera wrote them. What is up in the scene depends on how it was
mounted, so each data set says how its addresses become columns and rows.
"""

from pathlib import Path

import numpy as np

from rmploss.data.events import Events, damaged

SENSOR = (128, 128)
_FIRST_LINE = b"#!AER-DAT2.0"


def read_aedat(path: Path) -> Events:
    """The events of a file. Raises `DataError`, with the byte offset, for anything out of form."""
    data = path.read_bytes()
    start = _header_length(data, path)
    if (len(data) - start) % 8:
        whole = len(data) - (len(data) - start) % 8
        raise damaged(path, whole, f"the last event is cut off: {len(data) - whole} of its 8 bytes")
    if len(data) == start:
        raise damaged(path, start, "the file holds no events")
    address, t = np.frombuffer(data, ">u4", offset=start).reshape(-1, 2).T.astype(np.int64)
    for wrong, why in (
        (address >= 1 << 15, "an address beyond 128x128 pixels and a polarity (bits 0-14)"),
        (np.diff(t, prepend=t[0]) < 0, "time runs back"),
    ):
        if wrong.any():
            event = int(wrong.argmax())
            values = f"event {event}: address {address[event]:#x}, time {t[event]} us"
            raise damaged(path, start + 8 * event, f"{why} ({values})")
    return Events(t=t, x=address >> 1 & 127, y=address >> 8 & 127, p=1 - (address & 1))


def _header_length(data: bytes, path: Path) -> int:
    """Where the events begin. No address begins with the byte "#" (0x23): its bit 15 is clear."""
    if not data.startswith(_FIRST_LINE):
        raise damaged(path, 0, f"begins with {data[:12]!r}, not {_FIRST_LINE!r}: not AEDAT 2.0")
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        if end < 0:
            raise damaged(path, start, "a header line without end")
        start = end + 1
    return start
