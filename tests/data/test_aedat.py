from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmploss.data.aedat import read_aedat
from rmploss.data.events import Events
from rmploss.errors import DataError
from tests.data.files import HEADER, Rows, aedat

SPECIAL = bytes([0, 0, 0x80, 0, 0, 0, 0, 9])
VERSION_1 = b"#!AER-DAT1.0\r\n"
EVENTS = [(5, 0, 127, 1), (5, 127, 0, 0), (4_000_000_000, 64, 3, 1)]


def _rows(events: Events) -> list[tuple[int, ...]]:
    return [
        tuple(map(int, row)) for row in zip(events.t, events.x, events.y, events.p, strict=True)
    ]


def _read(tmp_path: Path, data: bytes) -> Events:
    path = tmp_path / "recording.aedat"
    path.write_bytes(data)
    return read_aedat(path)


def test_reads_what_the_camera_wrote(tmp_path: Path) -> None:
    events = _read(tmp_path, aedat(EVENTS))
    assert _rows(events) == EVENTS
    assert all(getattr(events, field).dtype == np.int64 for field in "txyp")


def test_the_bits_of_an_address(tmp_path: Path) -> None:
    """y = 3 in bits 8-14, x = 5 in bits 1-7, bit 0 set is OFF; then the time."""
    data = HEADER + bytes([0, 0, 0b0000_0011, 0b0000_1011, 0, 0, 1, 2])
    assert _rows(_read(tmp_path, data)) == [(258, 5, 3, 0)]


@pytest.mark.parametrize(
    ("data", "offset", "why"),
    [
        (b"", 0, "not AEDAT 2.0"),
        (b"<html>404</html>", 0, "not AEDAT 2.0"),
        (aedat(EVENTS, b""), 0, "not AEDAT 2.0"),
        (aedat(EVENTS, b"#!AER-DAT4.0\r\n"), 0, "is AEDAT 4.0; 1.0 and 2.0 are read here"),
        (aedat(EVENTS, b"#!AER-DAT3.1\r\n"), 0, "is AEDAT 3.1; 1.0 and 2.0 are read here"),
        (HEADER + SPECIAL * 2, len(HEADER), "no events, only 2 special ones"),
        (HEADER + SPECIAL + b"\0\1\0\0" + SPECIAL[4:], len(HEADER) + 8, "event 1: address 0x10000"),
        (VERSION_1 + SPECIAL[2:7], len(VERSION_1), "cut off: 5 of its 6 bytes"),
        (HEADER + b"# a line without end", len(HEADER), "without end"),
        (HEADER, len(HEADER), "no events"),
        (aedat(EVENTS)[:-3], len(HEADER) + 16, "cut off: 5 of its 8 bytes"),
        (HEADER + b"\0\3" + b"\0" * 6, len(HEADER), "beyond 128x128"),
        (HEADER + b"\x7f" * 8, len(HEADER), "0x7f7f7f7f"),
        (aedat([(7, 0, 0, 1), (9, 0, 0, 1), (8, 0, 0, 1)]), len(HEADER) + 16, "time runs back"),
    ],
)
def test_refuses_with_file_and_byte(data: bytes, offset: int, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, data)
    assert f"recording.aedat, byte {offset}: " in str(caught.value)
    assert why in str(caught.value)


@pytest.mark.parametrize("address", [0x8000, 0x80000000, 0xFFFF_FFFF, 0x8202])
def test_special_events_are_left_out_as_in_jaer(address: int, tmp_path: Path) -> None:
    special = address.to_bytes(4, "big") + (3).to_bytes(4, "big")
    events = aedat(EVENTS, b"")
    data = HEADER + special + events[:8] + special + events[8:] + special
    assert _rows(_read(tmp_path, data)) == EVENTS


def test_version_1_has_addresses_of_16_bits(tmp_path: Path) -> None:
    rows = [(5, 1, 35, 1), (6, 127, 127, 0), (4_000_000_000, 64, 3, 1)]
    plain = [(x << 1 | y << 8 | 1 - p, t) for t, x, y, p in rows]
    events = [a.to_bytes(2, "big") + t.to_bytes(4, "big") for a, t in plain]
    special = b"\x80\0\0\0\0\5"
    assert events[0][:1] == b"#"  # no header line
    data = b"".join([events[0], special, *events[1:]])
    for header in (VERSION_1, VERSION_1 + b"# created Thu\r\n"):
        assert _rows(_read(tmp_path, header + data)) == rows


def test_another_version_is_named_with_a_converter(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"convert it to AEDAT 2\.0") as caught:
        _read(tmp_path, b"#!AER-DAT4.0\r\n" + bytes(32))
    assert "a recording in a format that is not read" in str(caught.value)


@given(data=st.binary(max_size=80), headed=st.booleans())
@settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    max_examples=300,
    deadline=None,  # a busy machine
)
def test_any_bytes_are_read_in_range_or_refused(data: bytes, headed: bool, tmp_path: Path) -> None:
    try:
        events = _read(tmp_path, HEADER * headed + data)
    except DataError:
        return
    assert len(events) > 0
    assert (np.diff(events.t) >= 0).all()
    for field, limit in (("x", 128), ("y", 128), ("p", 2), ("t", 2**32)):
        values = getattr(events, field)
        assert values.min() >= 0
        assert values.max() < limit


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1), st.integers(0, 127), st.integers(0, 127), st.integers(0, 1)
        ),
        min_size=1,
    )
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_reads_back_any_recording(tmp_path_factory: pytest.TempPathFactory, events: Rows) -> None:
    rows = sorted(events)
    assert _rows(_read(tmp_path_factory.getbasetemp(), aedat(rows))) == rows
