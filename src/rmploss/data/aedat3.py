"""AEDAT 3.1 recordings (cAER, jAER; the format of DVS128 Gesture), row 0 on top.

A text header, from the line "#!AER-DAT3.1" to the line "#!END-HEADER"; then packets, little-endian:

    type int16 | source int16 | size, time offset, overflow, capacity, number, valid: int32 each
    `number` events of `size` bytes

Type 1 is a packet of polarity events of 8 bytes:

    data      uint32: bit 0 valid, bit 1 polarity (set = ON), bits 2-16 y, bits 17-31 x
    time      uint32 of 31 bits; microseconds = overflow * 2^31 + time

Packets of other types (frames, inertial samples, pulses) and invalid events are left out. Only the
uncompressed form ("#Format: RAW") of one source of polarity events, a camera, is read.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from rmploss.data.events import Events, recording_error
from rmploss.errors import DataError, Problem

POLARITY = 1
END = b"#!END-HEADER\r\n"
_HEADER = np.dtype(
    [("type", "<i2"), ("source", "<i2")]
    + [(name, "<i4") for name in ("size", "offset", "overflow", "capacity", "number", "valid")]
)
_EVENT = np.dtype([("data", "<u4"), ("t", "<u4")])


class _Packet(NamedTuple):
    """Polarity events, their source, the byte at which they begin, what is added to their times."""

    rows: np.ndarray
    source: int
    start: int
    base: int


def read_aedat3(path: Path, sensor: tuple[int, int]) -> Events:
    """The valid polarity events of a file.

    path: of an AEDAT 3.1 file.
    sensor: (H, W); the frames are checked against it later.
    Raises `DataError`, with the byte offset, for a malformed file or a compressed one.
    """
    data = path.read_bytes()
    start = _header_length(data, path)
    parts, last, source = [], 0, None
    for packet in _packets(data, start, path):
        part = _events(packet, last, path)
        if len(part):
            if source not in (None, packet.source):
                why = f"events of source {packet.source} after those of {source}: two cameras"
                raise recording_error(path, packet.start, why)
            source = packet.source
            parts.append(part)
            last = int(part.t[-1])
    if not parts:
        raise recording_error(path, start, "the file holds no valid polarity events")
    fields = (np.concatenate([getattr(part, field) for part in parts]) for field in "txyp")
    return Events(*fields)


def _header_length(data: bytes, path: Path) -> int:
    """The offset of the first packet."""
    end = data.find(END)
    if end < 0:
        raise recording_error(path, 0, "has no line #!END-HEADER: not AEDAT 3.1, or cut off")
    form = re.search(rb"#\s*Format:\s*(\S+)", data[:end])
    if form is not None and form[1] != b"RAW":
        problem = Problem(
            f"{path}, byte {form.start()}",
            f"has the form {form[1].decode(errors='replace')}; only RAW is read",
            "record it uncompressed, or convert it to .npz with arrays x, y, t, p",
        )
        raise DataError("a recording in a form that is not read", [problem])
    return end + len(END)


def _packets(data: bytes, start: int, path: Path) -> Iterator[_Packet]:
    """The packets of polarity events in a file, checked against its length."""
    while start < len(data):
        if len(data) - start < _HEADER.itemsize:
            raise recording_error(path, start, "the header of a packet is cut off")
        header = np.frombuffer(data, _HEADER, 1, start)[0]
        size, number = int(header["size"]), int(header["number"])
        if size < 1 or number < 0 or header["overflow"] < 0:
            why = f"no packet: {number} events of {size} bytes, overflow {header['overflow']}"
            raise recording_error(path, start, why)
        begin, stop = start + _HEADER.itemsize, start + _HEADER.itemsize + size * number
        if stop > len(data):
            why = f"a packet of {size * number} bytes is cut off after {len(data) - begin}"
            raise recording_error(path, start, why)
        if header["type"] == POLARITY:
            if size != _EVENT.itemsize:
                raise recording_error(path, start, f"polarity events of {size} bytes, not 8")
            rows = np.frombuffer(data, _EVENT, number, begin)
            base = int(header["overflow"]) << 31
            yield _Packet(rows, int(header["source"]), begin, base)
        start = stop


def _events(packet: _Packet, last: int, path: Path) -> Events:
    """The valid events of a packet, whose times do not run back.

    last: the time of the event before them, in microseconds.
    """
    (valid,) = np.nonzero(packet.rows["data"] & 1)
    word, time = (packet.rows[name][valid].astype(np.int64) for name in ("data", "t"))
    beyond = time >= 1 << 31
    if beyond.any():
        event = int(beyond.argmax())
        offset = packet.start + _EVENT.itemsize * int(valid[event])
        raise recording_error(path, offset, f"a time of {time[event]} us in 31 bits")
    t = time + packet.base
    back = np.diff(t, prepend=last) < 0
    if back.any():
        event = int(back.argmax())
        offset = packet.start + _EVENT.itemsize * int(valid[event])
        before = t[event - 1] if event else last
        raise recording_error(path, offset, f"time runs back from {before} to {t[event]} us")
    return Events(t=t, x=word >> 17 & 0x7FFF, y=word >> 2 & 0x7FFF, p=word >> 1 & 1)
