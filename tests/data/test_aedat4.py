"""AEDAT 4.0: the files that the format's own library wrote, and faults in them."""

import struct
import sys
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from rmploss.data import aedat4
from rmploss.data.recordings import read_recording
from rmploss.errors import DataError, UserError

FILES = Path(__file__).parent.parent / "fixtures" / "recordings"
SENSOR = (12, 20)


@pytest.fixture
def package() -> None:
    """Skip without the package that reads the format."""
    pytest.importorskip("aedat", reason="needs aedat: pip install '.[events]'")


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize("compression", ["none", "lz4", "zstd_high"])
def test_the_events_are_those_that_were_written(compression: str) -> None:
    events = read_recording(FILES / f"{compression}.aedat4", SENSOR)
    i = np.arange(100)  # the formula of tests/fixtures/make_recordings.py
    expected = {
        "t": 1_700_000_000_000_000 + 700 * i,
        "x": 7 * i % 20,
        "y": 5 * i % 12,
        "p": (i % 3 == 0).astype(int),
    }
    for field, values in expected.items():
        found = getattr(events, field)
        assert found.dtype == np.int64
        assert found.tolist() == values.tolist()


@pytest.mark.usefixtures("package")
def test_the_name_aedat_will_do(tmp_path: Path) -> None:
    (tmp_path / "a.aedat").write_bytes((FILES / "lz4.aedat4").read_bytes())
    assert len(read_recording(tmp_path / "a.aedat", SENSOR)) == 100


@pytest.mark.usefixtures("package")
def test_another_sensor_is_named_with_what_to_type() -> None:
    with pytest.raises(DataError, match=r"20x12 pixels.*data.sensor=\(20,12\)"):
        read_recording(FILES / "lz4.aedat4", (128, 128))


@pytest.mark.usefixtures("package")
def test_a_cut_file_is_an_error(tmp_path: Path) -> None:
    whole = (FILES / "lz4.aedat4").read_bytes()
    first = 18 + int.from_bytes(whole[14:18], "little")  # where the first packet begins
    for length in (0, 10, 14, 16, 500, first - 1, first, first + 5, first + 100):
        (tmp_path / "a.aedat4").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"a\.aedat4"):
            read_recording(tmp_path / "a.aedat4", SENSOR)


def starts_of_packets(data: bytes) -> list[int]:
    """Where the packets of a fixture begin, and last where its table does."""
    at, found = 18 + int.from_bytes(data[14:18], "little"), []
    while at < aedat4._end_of_packets(data[18:]):
        found.append(at)
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "little")
    return [*found, at]


@pytest.mark.parametrize("compression", ["none", "lz4", "zstd_high"])
def test_a_length_beyond_the_file_is_refused_before_memory_is_taken(
    compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, path = (FILES / f"{compression}.aedat4").read_bytes(), tmp_path / "a.aedat4"
    *packets, table = starts_of_packets(whole)
    assert len(packets) > 1
    assert table == aedat4._end_of_packets(whole[18:])
    monkeypatch.setitem(sys.modules, "aedat", ModuleType("aedat"))  # It has no decoder.
    for place in (14, *(at + 4 for at in packets)):
        for length in (2**32 - 1, len(whole) - place - 3):
            damaged = bytearray(whole)
            damaged[place : place + 4] = length.to_bytes(4, "little")
            path.write_bytes(damaged)
            with pytest.raises(DataError, match=rf"a\.aedat4, byte {place}: .* file"):
                read_recording(path, SENSOR)
    for length in (len(whole), table):  # Sound lengths: it is the package that is missing.
        path.write_bytes(whole[:length])
        with pytest.raises(AttributeError, match="Decoder"):
            read_recording(path, SENSOR)


@pytest.mark.usefixtures("package")
def test_a_file_whose_writer_died_before_the_table_is_read(tmp_path: Path) -> None:
    whole = (FILES / "lz4.aedat4").read_bytes()
    table = starts_of_packets(whole)[-1]
    path = tmp_path / "a.aedat4"
    path.write_bytes(whole[:table].replace(table.to_bytes(8, "little"), b"\xff" * 8))
    assert aedat4._end_of_packets(path.read_bytes()[18:]) == -1
    assert len(read_recording(path, SENSOR)) == 100


def test_a_damaged_header_is_an_error(tmp_path: Path) -> None:
    whole = (FILES / "lz4.aedat4").read_bytes()
    for place in range(18, 40):
        for value in (0, 0x7F, 0xFF):
            damaged = bytearray(whole)
            damaged[place] = value
            with suppress(struct.error):
                aedat4._end_of_packets(bytes(damaged[18:]))


@pytest.mark.usefixtures("package")
def test_a_header_that_is_no_text_is_an_error_and_not_the_end_of_the_process(
    tmp_path: Path,
) -> None:
    data = bytearray((FILES / "zstd_high.aedat4").read_bytes())
    data[data.index(b"/outInfo/")] = 0xEA
    path = tmp_path / "a.aedat4"
    path.write_bytes(data)
    with pytest.raises(DataError, match="damaged or cut off: 'utf-8'"):
        read_recording(path, SENSOR)


def test_a_flipped_bit_is_an_error_or_events(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    whole = (FILES / "zstd_high.aedat4").read_bytes()
    draw = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        damaged[draw.integers(len(whole))] ^= 1 << draw.integers(8)
        (tmp_path / "a.aedat4").write_bytes(damaged)
        try:
            read_recording(tmp_path / "a.aedat4", SENSOR)
        except DataError:
            refused += 1
    assert refused > 10


class PanicException(BaseException):
    """What the package raises at some damaged headers."""


@pytest.mark.parametrize(
    ("raised", "seen"),
    [
        (PanicException("index out of bounds"), DataError),
        (ValueError("bad"), DataError),
        (KeyboardInterrupt(), KeyboardInterrupt),
        (SystemExit(1), SystemExit),
        (GeneratorExit(), GeneratorExit),
        (MemoryError(), MemoryError),
    ],
)
def test_panics_are_damage_and_nothing_else_is(
    raised: BaseException, seen: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def decoder(_: str) -> None:
        raise raised

    module = ModuleType("aedat")
    vars(module)["Decoder"] = decoder
    monkeypatch.setitem(sys.modules, "aedat", module)
    with pytest.raises(seen):
        read_recording(FILES / "lz4.aedat4", SENSOR)


def test_without_the_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "aedat", None)
    with pytest.raises(UserError, match=r"pip install 'rmploss\[events\]'"):
        read_recording(FILES / "lz4.aedat4", SENSOR)
