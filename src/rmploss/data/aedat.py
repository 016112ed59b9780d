"""AEDAT 1.0 and 2.0 recordings of a DVS128 camera (jAER), 128x128 pixels.

Header lines begin with "#", the first is "#!AER-DAT2.0" or "#!AER-DAT1.0". An event is an address,
of 32 bits (2.0) or 16 (1.0), and a time of 32 bits, both big-endian:

    address   bit 0 polarity (set = OFF), bits 1-7 x, bits 8-14 y
              bit 15 or bit 31 set: a special event (a pulse at the camera's input), without a pixel
    time      microseconds, unsigned (recordings beyond 2^31 exist), never decreasing

Special events are left out, as jAER does. Later versions are refused here: 3.1 and 4.0 count rows
from the top, so that pictures of a published data set would be upside down. Own recordings of those
versions are read by aedat3.py and aedat4.py, through recordings.py.

x and y are returned as the camera wrote them. Which direction is up depends on how the camera was
mounted: each data set maps addresses to columns and rows.
"""

import re
from pathlib import Path

import numpy as np

from rmploss.data.events import Events, recording_error
from rmploss.errors import DataError, Problem

SENSOR = (128, 128)
_EVENT = {
    b"1.0": np.dtype([("address", ">u2"), ("t", ">u4")]),
    b"2.0": np.dtype([("address", ">u4"), ("t", ">u4")]),
}
_SPECIAL = 1 << 15 | 1 << 31
_CONVERT = (
    "put the original AEDAT 2.0 file there, or convert it to AEDAT 2.0 "
    "(aedat4to2.py of github.com/SensorsINI, for 4.0)"
)


def read_aedat(path: Path) -> Events:
    """The events of a file, without special events.

    Raises `DataError` for a version that is not read, and, with the byte offset, for a malformed
    file.
    """
    data = path.read_bytes()
    version = _version(data, path)
    dtype, start = _EVENT[version], _header_length(data, path, version)
    size = dtype.itemsize
    if (len(data) - start) % size:
        whole = len(data) - (len(data) - start) % size
        raise recording_error(
            path, whole, f"the last event is cut off: {len(data) - whole} of its {size} bytes"
        )
    rows = np.frombuffer(data, dtype, offset=start)
    address, t = rows["address"].astype(np.int64), rows["t"].astype(np.int64)
    (pixels,) = np.nonzero(address & _SPECIAL == 0)
    if len(pixels) == 0:
        special = f", only {len(rows)} special ones" if len(rows) else ""
        raise recording_error(path, start, f"the file holds no events{special}")
    address, t = address[pixels], t[pixels]
    for wrong, why in (
        (address >= 1 << 15, "an address beyond 128x128 pixels and a polarity (bits 0-14)"),
        (np.diff(t, prepend=t[0]) < 0, "time runs back"),
    ):
        if wrong.any():
            event = int(wrong.argmax())
            values = f"event {pixels[event]}: address {address[event]:#x}, time {t[event]} us"
            raise recording_error(path, start + size * int(pixels[event]), f"{why} ({values})")
    return Events(t=t, x=address >> 1 & 127, y=address >> 8 & 127, p=1 - (address & 1))


def _version(data: bytes, path: Path) -> bytes:
    """The version in the first line. jAER takes a file without that line for AEDAT 1.0."""
    match = re.match(rb"#!AER-DAT(\d+\.\d+)", data)
    if match is None:
        what = f"begins with {data[:12]!r}, not b'#!AER-DAT2.0': not AEDAT 2.0"
        raise recording_error(path, 0, what)
    if match[1] not in _EVENT:
        problem = Problem(
            f"{path}, byte 0",
            f"is AEDAT {match[1].decode()}; 1.0 and 2.0 are read here",
            _CONVERT,
        )
        raise DataError("a recording in a format that is not read", [problem])
    return match[1]


def _header_length(data: bytes, path: Path, version: bytes) -> int:
    """The offset of the first event.

    In 2.0 no address begins with "#" (0x23): its bits 16-30 are clear. In 1.0 one may (y = 35): a
    header line is printable text, and the time of an event is not, as it begins with a byte 0.
    """
    start = 0
    while data[start : start + 1] == b"#":
        end = data.find(b"\n", start)
        text = data[start : end + 1].rstrip(b"\r\n")
        if version == b"1.0" and not (end >= 0 and all(c >= 32 or c == 9 for c in text)):
            break
        if end < 0:
            raise recording_error(path, start, "a header line without end")
        start = end + 1
    return start
