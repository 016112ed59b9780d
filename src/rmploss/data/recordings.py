"""Recordings of event cameras in files of several formats, row 0 on top, in microseconds.

.npz       arrays x, y, t, p
.npy       a structured array with these fields
.aedat     AEDAT 1.0 and 2.0 of a DVS128 (aedat.py); rows are counted from the bottom in the file.
           AEDAT 3.1 (aedat3.py) and 4.0 (aedat4.py), of any sensor
.aedat4    AEDAT 4.0
.bin       5 bytes per event, as N-MNIST and N-Caltech101 (nmnist.py)
.dat       Prophesee: header lines that begin with "%", two bytes, and 8 bytes per event

Times that are real numbers are seconds.
"""

import io
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from rmploss.data import aedat
from rmploss.data.aedat import read_aedat
from rmploss.data.aedat3 import read_aedat3
from rmploss.data.aedat4 import read_aedat4
from rmploss.data.events import Events, recording_error, unreadable
from rmploss.data.nmnist import read_bin
from rmploss.errors import DataError

NAMES: dict[str, tuple[str, ...]] = {
    "x": ("x",),
    "y": ("y",),
    "t": ("t", "ts", "timestamp", "timestamps"),
    "p": ("p", "pol", "polarity", "on"),
}
"""The names of each array."""
_DAT = np.dtype([("t", "<u4"), ("address", "<u4")])


def read_arrays(path: Path, sensor: tuple[int, int]) -> Events:
    """A NumPy file; no pickle is read. Raises `DataError` for other arrays."""
    try:
        loaded = np.load(io.BytesIO(path.read_bytes()), allow_pickle=False)
        arrays = {name: np.asarray(loaded[name]) for name in _names_of(loaded)}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _no_arrays(path, str(error).partition("\n")[0] or "is cut off") from error
    fields = {}
    for field, names in NAMES.items():
        found = [arrays[name] for name in names if name in arrays]
        if not found:
            what = f"has no array {field} ({', '.join(names)}), but {', '.join(arrays) or 'none'}"
            raise _no_arrays(path, what)
        fields[field] = found[0]
    return _from_arrays(path, fields)


def _names_of(loaded: object) -> list[str]:
    """The names of the arrays of an .npz, or of the fields of a structured array."""
    if isinstance(loaded, np.ndarray):
        return list(loaded.dtype.names or ())
    return list(getattr(loaded, "files", ()))


def _from_arrays(path: Path, fields: Mapping[str, np.ndarray]) -> Events:
    """Events of arrays of equal length. Polarities are 0 and 1, or -1 and 1."""
    shapes = {name: array.shape for name, array in fields.items()}
    if len({*shapes.values()}) > 1 or len(next(iter(shapes.values()))) != 1:
        raise _no_arrays(path, f"its arrays have the shapes {shapes}, not one length")
    if len(fields["t"]) == 0:
        raise _no_arrays(path, "it holds no events")
    odd = [name for name, array in fields.items() if array.dtype.kind not in "biuf"]
    if odd:
        raise _no_arrays(path, f"its array {odd[0]} holds no numbers")
    t = fields["t"]
    if t.dtype.kind == "f":
        if not np.isfinite(t).all():
            raise _no_arrays(path, "a time is not finite")
        t = np.round(t * 1e6)
    x, y, p = (fields[name] for name in "xyp")
    for name, array in (("x", x), ("y", y), ("p", p)):
        if array.dtype.kind == "f" and not (np.mod(array, 1) == 0).all():
            raise _no_arrays(path, f"its array {name} holds fractions")
    numbers = {"t": t, "x": x, "y": y, "p": p}
    for name, array in numbers.items():
        if ((array < -(2.0**62)) | (array > 2.0**62)).any():
            raise _no_arrays(path, f"its array {name} holds numbers beyond 2^62")
    whole = {name: array.astype(np.int64) for name, array in numbers.items()}
    return Events(**{**whole, "p": np.where(whole["p"] < 0, 0, whole["p"])})


def read_dat(path: Path, sensor: tuple[int, int]) -> Events:
    """A Prophesee file of version 2. Raises `DataError` for a malformed one."""
    data, start = path.read_bytes(), 0
    while data[start : start + 1] == b"%":
        end = data.find(b"\n", start)
        if end < 0:
            raise recording_error(path, start, "a header line without end")
        start = end + 1
    if start == 0:
        raise recording_error(path, 0, "no header line that begins with %: not Prophesee's format")
    if len(data) < start + 2 or data[start + 1] != _DAT.itemsize:
        raise recording_error(path, start, "events of another size than 8 bytes are not read")
    start += 2
    if (len(data) - start) % _DAT.itemsize:
        whole = len(data) - (len(data) - start) % _DAT.itemsize
        raise recording_error(path, whole, "the last event is cut off")
    rows = np.frombuffer(data, _DAT, offset=start)
    if len(rows) == 0:
        raise recording_error(path, start, "the file holds no events")
    address = rows["address"].astype(np.int64)
    return Events(
        t=rows["t"].astype(np.int64),
        x=address & 0x3FFF,
        y=address >> 14 & 0x3FFF,
        p=address >> 28 & 1,
    )


def read_upright(path: Path, sensor: tuple[int, int]) -> Events:
    """An AEDAT file of any version, by its first line, with row 0 on top."""
    with path.open("rb") as file:
        found = re.match(rb"#!AER-DAT(\d+\.\d+)", file.read(32))
    version = found[1].decode() if found else ""
    if version == "3.1":
        return read_aedat3(path, sensor)
    if version == "4.0":
        return read_aedat4(path, sensor)
    if version not in ("", "1.0", "2.0"):
        why = f"is AEDAT {version}; 1.0, 2.0, 3.1 and 4.0 are read"
        raise unreadable(path, why, "convert it to one of these, or to .npz")
    events = read_aedat(path)
    return Events(events.t, events.x, aedat.SENSOR[0] - 1 - events.y, events.p)


READERS: dict[str, Callable[[Path, tuple[int, int]], Events]] = {
    ".npz": read_arrays,
    ".npy": read_arrays,
    ".aedat": read_upright,
    ".aedat4": read_aedat4,
    ".bin": read_bin,
    ".dat": read_dat,
}
"""The reader of a format, by the ending of a file's name in lower case."""


def read_recording(path: Path, sensor: tuple[int, int]) -> Events:
    """The events of a file, all within the sensor and in order of time.

    path: of a format in `READERS`.
    sensor: (H, W) of the camera.
    Raises `DataError` for a file that cannot be read.
    """
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise unreadable(path, f"is none of {' '.join(READERS)}")
    if not path.is_file():
        raise unreadable(path, "is no regular file" if path.exists() else "no such file")
    return reader(path, sensor)


def extent(events: Events) -> tuple[int, int]:
    """(H, W) of the smallest sensor that holds the events."""
    return int(events.y.max()) + 1, int(events.x.max()) + 1


def _no_arrays(path: Path, why: str) -> DataError:
    fix = "arrays x, y, t (microseconds) and p of one length, saved by numpy.savez"
    return unreadable(path, why, fix)
