"""AEDAT 3.1: the events of every packet, other packets passed over, faults with their offsets."""

import struct
from pathlib import Path

import numpy as np
import pytest

from rmploss.data.events import Events
from rmploss.data.recordings import read_recording
from rmploss.errors import DataError
from tests.data.files import HEADER3, aedat3, packet3

SENSOR = (128, 128)


def events(n: int = 50, start: int = 0) -> Events:
    draw = np.random.default_rng(n)
    return Events(
        t=start + np.sort(draw.integers(0, 10**6, n)),
        x=draw.integers(0, 128, n),
        y=draw.integers(0, 128, n),
        p=draw.integers(0, 2, n),
    )


def read(tmp_path: Path, content: bytes) -> Events:
    (tmp_path / "a.aedat").write_bytes(content)
    return read_recording(tmp_path / "a.aedat", SENSOR)


def same(found: Events, expected: Events) -> bool:
    return all(
        getattr(found, field).tolist() == getattr(expected, field).tolist() for field in "txyp"
    )


def test_all_packets_of_polarity_events_in_order(tmp_path: Path) -> None:
    first, second = events(50), events(30, start=2 * 10**6)
    other = packet3(b"\0" * 48, kind=2, size=24)
    found = read(tmp_path, HEADER3 + aedat3(first) + other + aedat3(second))
    both = Events(*(np.concatenate([getattr(e, f) for e in (first, second)]) for f in "txyp"))
    assert same(found, both)
    assert found.t.dtype == np.int64


def test_times_go_on_beyond_31_bits(tmp_path: Path) -> None:
    late = events(5, start=3 << 31)
    assert same(read(tmp_path, HEADER3 + aedat3(late)), late)


def test_invalid_events_are_left_out(tmp_path: Path) -> None:
    every = events(10)
    content = bytearray(HEADER3 + aedat3(every))
    content[len(HEADER3) + 28 + 8 * 3] &= 0xFE  # the valid bit of the fourth
    kept = [i for i in range(10) if i != 3]
    chosen = Events(*(getattr(every, field)[kept] for field in "txyp"))
    assert same(read(tmp_path, bytes(content)), chosen)


def test_the_independent_reader_of_tonic_agrees(tmp_path: Path) -> None:
    tonic = pytest.importorskip("tonic.io")
    content = HEADER3 + aedat3(events(50)) + aedat3(events(30, start=2 * 10**6))
    ours = read(tmp_path, content)
    start = len(HEADER3)
    rows = tonic.get_aer_events_from_file(str(tmp_path / "a.aedat"), 3.1, start)
    address = rows["address"]
    assert ours.x.tolist() == (address >> 17 & 0x1FFF).tolist()
    assert ours.y.tolist() == (address >> 2 & 0x1FFF).tolist()
    assert ours.p.tolist() == (address >> 1 & 1).tolist()
    assert ours.t.tolist() == rows["timeStamp"].tolist()


def test_a_cut_at_every_byte_is_an_error_or_ends_at_a_packet(tmp_path: Path) -> None:
    parts = [HEADER3, aedat3(events(4)), aedat3(events(3, start=2 * 10**6))]
    whole = b"".join(parts)
    ends = {len(parts[0]) + len(parts[1]): 4}
    for length in range(len(whole)):
        if length in ends:
            assert len(read(tmp_path, whole[:length])) == ends[length]
        else:
            with pytest.raises(DataError, match="byte"):
                read(tmp_path, whole[:length])


ONE = struct.pack("<II", 1, 5)
"""A valid event at 5 us."""


def test_two_cameras_in_one_file_are_an_error(tmp_path: Path) -> None:
    first = HEADER3 + packet3(ONE, kind=1, size=8)
    empty = packet3(struct.pack("<II", 0, 5), kind=1, size=8, source=2)
    assert len(read(tmp_path, first + empty)) == 1
    with pytest.raises(DataError, match="events of source 2 after those of 1"):
        read(tmp_path, first + packet3(ONE, kind=1, size=8, source=2))


BACK = Events(np.array([5, 3]), np.array([1, 2]), np.array([1, 2]), np.array([0, 1]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"#!AER-DAT3.1\r\n", "no line #!END-HEADER"),
        (HEADER3.replace(b"RAW", b"SerializedTS"), "has the form SerializedTS; only RAW"),
        (HEADER3, "no valid polarity events"),
        (
            HEADER3 + packet3(ONE + struct.pack("<II", 1, 1 << 31 | 6), kind=1, size=8),
            f"byte {len(HEADER3) + 36}: *a time of 2147483654 us in 31 bits",
        ),
        (HEADER3 + aedat3(BACK), f"byte {len(HEADER3) + 36}: *time runs back from 5 to 3 us"),
        (HEADER3 + aedat3(BACK)[:28], "of 16 bytes is cut off after 0"),
        (HEADER3 + packet3(b"\0" * 12, kind=1, size=12), "polarity events of 12 bytes"),
        (HEADER3 + packet3(b"", kind=1, size=-1), "no packet: 0 events of -1 bytes"),
    ],
)
def test_damaged_files(tmp_path: Path, content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message.replace(": *", r".*")):
        read(tmp_path, content)
