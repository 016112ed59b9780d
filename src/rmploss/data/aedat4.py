"""AEDAT 4.0 recordings (DV, dv-processing), row 0 on top, read by the package `aedat`.

A file holds streams of packets (events, frames, inertial samples, pulses), compressed or not. The
first stream of events is read. The format has no checksums: a bit that is flipped within an
uncompressed event is another event. The package takes memory for a length that the file states, and
ends the process, without an exception, where there is none: lengths are compared with the file's
size before. It holds all events: a file made to decompress to more than there is ends it still.
"""

import importlib
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from rmploss.data.events import Events, recording_error, unreadable
from rmploss.errors import Problem, UserError

EXTRA = "pip install 'rmploss[events]'"
MAGIC = b"#!AER-DAT4.0\r\n"
HEADER_BYTES = 1 << 24
"""The most that is read of a header, a FlatBuffer after its own length of 4 bytes."""


def read_aedat4(path: Path, sensor: tuple[int, int]) -> Events:
    """The events of a file.

    path: of an AEDAT 4.0 file.
    sensor: (H, W), which must be that of the file's stream of events.
    Raises `UserError` without the package, `DataError` for a malformed file or another sensor.
    """
    with path.open("rb") as file:
        if file.read(len(MAGIC)) != MAGIC:
            raise unreadable(path, f"does not begin with {MAGIC!r}: not AEDAT 4.0")
        length = int.from_bytes(file.read(4), "little")
        _require_text(path, header := file.read(min(length, HEADER_BYTES)))
        _require_lengths(path, file, header, len(MAGIC) + 4 + length)
    try:
        decoder_of = importlib.import_module("aedat").Decoder
    except ImportError as error:
        problem = Problem(f"{path}: AEDAT 4.0", str(error), EXTRA)
        raise UserError("a package for this format is missing", [problem]) from error
    try:
        packets, shape = _decoded(decoder_of(str(path)))
    except MemoryError:
        raise
    except BaseException as error:
        # A panic of the package, which is written in Rust, at a damaged header is no `Exception`.
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise unreadable(path, f"is damaged or cut off: {error}") from error
    if shape is None:
        raise unreadable(path, "has no stream of events")
    if shape != sensor:
        fix = f"data.sensor=({shape[1]},{shape[0]})"
        raise unreadable(path, f"is of a sensor of {shape[1]}x{shape[0]} pixels", fix)
    if not sum(map(len, packets)):
        raise unreadable(path, "it holds no events")
    return _joined(path, np.concatenate(packets))


def _require_text(path: Path, header: bytes) -> None:
    """Raise `DataError` if the header's XML is no UTF-8, at which the package ends the process."""
    start, end = header.find(b"dv version") - 1, header.rfind(b"/dv>") + 4
    try:
        if not 0 <= start < end:
            raise ValueError("its header has no description in XML")
        header[start:end].decode()
    except ValueError as error:
        raise unreadable(path, f"is damaged or cut off: {error}") from None


def _require_lengths(path: Path, file: BinaryIO, header: bytes, start: int) -> None:
    """Raise `DataError` for a header or packet that is longer than the rest of the file.

    header: without its length.
    start: of the first packet.
    """
    size, at = os.fstat(file.fileno()).st_size, start
    if start > size:
        raise recording_error(path, len(MAGIC), "the header is longer than the file")
    try:
        end = _end_of_packets(header)
    except struct.error as error:
        raise unreadable(path, f"is damaged or cut off: {error}") from None
    while at != end and at + 8 <= size:  # An 8-byte head: the stream, and the length.
        file.seek(at + 4)
        length = int.from_bytes(file.read(4), "little")
        if length > size - at - 8:
            what = f"a packet of {length} bytes, of which the file holds {size - at - 8}"
            raise recording_error(path, at + 4, what)
        at += 8 + length


def _end_of_packets(header: bytes) -> int:
    """Where the table behind the packets begins; -1: there is none.

    A FlatBuffer: the place of the table of fields, and in front of that, by its first number, a
    list of the places of the fields in it. The field is the second.
    """
    (fields,) = struct.unpack_from("<I", header)
    (back,) = struct.unpack_from("<i", header, fields)
    if not 0 <= fields - back < len(header):
        raise struct.error("its header has no list of fields")
    listed, _, _, place = struct.unpack_from("<HHHH", header, fields - back)
    return struct.unpack_from("<q", header, fields + place)[0] if listed >= 8 and place else -1


def _decoded(decoder: Any) -> tuple[list[np.ndarray], tuple[int, int] | None]:
    """The packets of the first stream of events, and (H, W) of its sensor; None without one."""
    streams = decoder.id_to_stream()
    chosen = min((n for n, about in streams.items() if about["type"] == "events"), default=None)
    if chosen is None:
        return [], None
    packets = [packet["events"] for packet in decoder if packet["stream_id"] == chosen]
    return packets, (int(streams[chosen]["height"]), int(streams[chosen]["width"]))


def _joined(path: Path, rows: np.ndarray) -> Events:
    if rows["t"].max() >= 1 << 63:
        raise unreadable(path, "has a time beyond 2^63 microseconds")
    t = rows["t"].astype(np.int64)
    back = np.diff(t) < 0
    if back.any():
        event = int(back.argmax()) + 1
        raise unreadable(path, f"event {event}: time runs back from {t[event - 1]} to {t[event]}")
    x, y, p = (rows[name].astype(np.int64) for name in ("x", "y", "on"))
    return Events(t=t, x=x, y=y, p=p)
