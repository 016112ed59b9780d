from pathlib import Path

import pytest
import torch

from rmploss.data import Key, batches
from rmploss.data.nmnist import LAYOUTS, NMNIST, read_bin
from rmploss.errors import DataError

EVENTS = [(0, 33, 0, 1), (8_388_607, 5, 33, 0)]


def _bytes(events: list[tuple[int, int, int, int]]) -> bytes:
    """Of rows (t, x, y, p)."""
    return b"".join(bytes([x, y]) + (p << 23 | t).to_bytes(3, "big") for t, x, y, p in events)


@pytest.fixture(params=LAYOUTS)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Two recordings a digit: its first event at column 10 (training) or 20, row of the digit."""
    top, *splits = request.param
    for column, split in zip((10, 20), splits, strict=True):
        for digit in range(10):
            folder = tmp_path / top / split / str(digit)
            folder.mkdir(parents=True)
            for number in range(2):
                rows = [(100, column, digit, 1), (200, column, 30 + number, 0)]
                (folder / f"0000{number}.bin").write_bytes(_bytes(rows))
    return tmp_path


def test_reads_the_published_format(tmp_path: Path) -> None:
    path = tmp_path / "1.bin"
    path.write_bytes(_bytes(EVENTS))
    events = read_bin(path)
    assert list(zip(*(getattr(events, f).tolist() for f in "txyp"), strict=True)) == EVENTS


@pytest.mark.parametrize(
    ("data", "offset", "why"),
    [
        (b"", 0, "no events"),
        (_bytes(EVENTS)[:-2], 5, "cut off: 3 of its 5 bytes"),
        (_bytes([(0, 0, 0, 1), (1, 34, 0, 1)]), 5, "outside 34x34"),
        (_bytes([(0, 0, 0, 1), (1, 0, 239, 1)]), 5, "outside 34x34"),
        (_bytes([(0, 0, 240, 0), (0, 34, 0, 1)]), 5, "event 1: x 34"),
        (_bytes([(0, 0, 240, 0)] * 2), 0, "no events, only 2 overflows"),
        (_bytes([(7, 0, 0, 1), (6, 0, 0, 1)]), 5, "time runs back"),
    ],
)
def test_refuses_with_file_and_byte(data: bytes, offset: int, why: str, tmp_path: Path) -> None:
    path = tmp_path / "1.bin"
    path.write_bytes(data)
    with pytest.raises(DataError) as caught:
        read_bin(path)
    assert f"1.bin, byte {offset}: " in str(caught.value)
    assert why in str(caught.value)


def test_an_overflow_of_the_clock_moves_all_later_times(tmp_path: Path) -> None:
    path = tmp_path / "1.bin"
    path.write_bytes(
        _bytes([(10, 1, 2, 1), (8191, 0, 240, 0), (20, 3, 4, 0), (0, 9, 240, 1), (5, 3, 4, 0)])
    )
    events = read_bin(path)
    assert events.t.tolist() == [10, 20 + 8192, 5 + 2 * 8192]
    assert (events.x.tolist(), events.y.tolist()) == ([1, 3, 3], [2, 4, 4])
    assert events.p.tolist() == [1, 0, 0]


def test_the_metadata_files_of_macos_are_no_recordings(root: Path) -> None:
    for path in list(root.rglob("0/*.bin")):
        path.with_name(f"._{path.name}").write_bytes(b"\0\5\x16\7")
    splits = NMNIST().open(root, seed=0, T=2)
    assert (len(splits.train), len(splits.test)) == (20, 20)
    for path in list(root.rglob("0/[0-9]*.bin")):
        path.unlink()
    assert len(NMNIST().missing(root)) == 2


def test_either_layout_is_found(root: Path) -> None:
    assert NMNIST().missing(root) == []
    splits = NMNIST().open(root, seed=0, T=2)
    for split, column in ((splits.train, 10), (splits.test, 20)):
        assert split.labels.bincount().tolist() == [2] * 10
        for index in range(len(split)):
            x, label = split[Key(0, index)]
            assert label == split.labels[index]
            assert x.shape == NMNIST().shape(2)
            expected = torch.zeros(2, 2, 34, 34)
            expected[0, 1, label, column] = expected[1, 0, 30 + index % 2, column] = 1
            assert torch.equal(x, expected)


def test_missing_recordings_are_named(root: Path) -> None:
    path = next(root.glob("*/[tT]est/7/00000.bin"))
    path.unlink()
    assert NMNIST().missing(root) == []
    path.with_name("00001.bin").unlink()
    (problem,) = NMNIST().missing(root)
    assert problem.where == str(path.parent)
    with pytest.raises(DataError, match="no recordings"):
        NMNIST().open(root, seed=0, T=2)
    assert len(NMNIST().missing(root / "nowhere")) == 2


def test_a_damaged_recording_is_named_even_by_a_worker(root: Path) -> None:
    path = sorted(root.glob("*/[tT]rain/0/*.bin"))[0]
    path.write_bytes(b"1234567")
    samples = NMNIST().open(root, seed=0, T=2).train
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False, "workers": 1}
    with pytest.raises(DataError, match=r"00000\.bin, byte 5"):
        list(batches(samples, batch_size=4, **options))


@pytest.mark.real_data
def test_the_real_recordings(real_data_root: Path) -> None:
    splits = NMNIST().open(real_data_root, seed=0, T=10)
    assert splits.test.labels.bincount().tolist() == [8, 14, 8, 11, 14, 7, 10, 15, 2, 11]
    options = {"epoch": 0, "seed": 0, "shuffle": False, "drop_last": False}
    x = torch.cat([x for x, _ in batches(splits.test, batch_size=50, **options)], dim=1)
    assert x.shape == (10, 100, 2, 34, 34)
    assert x.unique().tolist() == [0, 1]
    assert 0.05 < float(x.mean()) < 0.12
