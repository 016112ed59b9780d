from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmploss.data.aedat import read_aedat
from rmploss.data.events import Events
from rmploss.errors import DataError
from tests.data.files import HEADER, Rows, aedat

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
        (aedat(EVENTS, b"#!AER-DAT4.0\r\n"), 0, "AER-DAT4"),
        (HEADER + b"# a line without end", len(HEADER), "without end"),
        (HEADER, len(HEADER), "no events"),
        (aedat(EVENTS)[:-3], len(HEADER) + 16, "cut off: 5 of its 8 bytes"),
        (aedat([*EVENTS, (4_000_000_001, 0, 128, 1)]), len(HEADER) + 24, "beyond 128x128"),
        (HEADER + b"\xff" * 8, len(HEADER), "0xffffffff"),
        (aedat([(7, 0, 0, 1), (9, 0, 0, 1), (8, 0, 0, 1)]), len(HEADER) + 16, "time runs back"),
    ],
)
def test_refuses_with_file_and_byte(data: bytes, offset: int, why: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        _read(tmp_path, data)
    assert f"recording.aedat, byte {offset}: " in str(caught.value)
    assert why in str(caught.value)


@given(data=st.binary(max_size=80), headed=st.booleans())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
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
