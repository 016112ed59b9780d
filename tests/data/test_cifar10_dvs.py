from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rmploss.data import Key, Splits
from rmploss.data.cifar10_dvs import CIFAR10DVS, SPLITS, held_out_mask
from rmploss.errors import DataError, UserError
from tests.data.files import aedat

PER_CLASS = 20
T = 3


def _rows(label: int, number: int) -> list[tuple[int, int, int, int]]:
    """Nine events at even places, so that a picture of half the size keeps them; number at y."""
    return [(1000 * i, 2 * label, 2 * number + 1, i % 2) for i in range(9)]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("rmploss.data.cifar10_dvs.PER_CLASS", PER_CLASS)
    monkeypatch.delenv("RMPLOSS_CACHE", raising=False)
    for label, name in enumerate(CIFAR10DVS.classes):
        folder = tmp_path / "cifar10-dvs" / name
        folder.mkdir(parents=True)
        for number in range(PER_CLASS):
            data = aedat(_rows(label, number))
            (folder / f"cifar10_{name}_{number}.aedat").write_bytes(data)
    return tmp_path


def _numbers(splits: Splits) -> Iterator[tuple[int, int]]:
    """(label, number) of the test recordings, read off their frames at full size."""
    for index in range(len(splits.test)):
        x, label = splits.test[Key(0, index)]
        columns = x.nonzero()[:, 3].unique().tolist()
        assert len(columns) == 1
        yield label, (columns[0] - 1) // 2


def test_frames_are_those_of_the_published_code(root: Path) -> None:
    """frame[t, ON, 127 - x, y]: ON is channel 1, and every frame has equally many events."""
    data = CIFAR10DVS(size=128, frames="count", split="files0-899")
    x, label = data.open(root, seed=0, T=T).test[Key(0, 0)]
    assert label == 0
    assert x.shape == data.shape(T) == (T, 2, 128, 128)
    expected = torch.zeros(data.shape(T))
    row, column = 127 - 0, 2 * 18 + 1
    for event in range(9):
        expected[event // 3, event % 2, row, column] += 1
    assert torch.equal(x, expected)


@pytest.mark.parametrize("frames", ["binary", "count"])
@pytest.mark.parametrize("integrate", ["number", "time"])
def test_cached_frames_are_those_just_made(root: Path, frames, integrate) -> None:
    data = CIFAR10DVS(size=48, frames=frames, integrate=integrate)
    fresh = data.open(root, seed=0, T=T)
    again = data.open(root, seed=0, T=T, progress=lambda *_: pytest.fail("made again"))
    for split, other in ((fresh.train, again.train), (fresh.test, again.test)):
        assert torch.equal(split.labels, other.labels)
        for index in range(len(split)):
            assert torch.equal(split[Key(1, index)][0], other[Key(1, index)][0])
    x = torch.stack([fresh.train[Key(0, i)][0] for i in range(len(fresh.train))])
    assert x.shape == (180, T, 2, 48, 48)
    assert x.sum() > 0
    assert x.max() == (1 if frames == "binary" else 2)


@pytest.mark.parametrize(
    "changed", [{"size": 64}, {"frames": "count"}, {"integrate": "time"}, {"T": 2}]
)
def test_what_the_frames_depend_on_is_in_the_name_of_the_cache(root: Path, changed) -> None:
    CIFAR10DVS().open(root, seed=0, T=T)
    calls = []
    steps = changed.pop("T", T)
    data = CIFAR10DVS(**changed)
    data.open(root, seed=0, T=steps, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(done + 1, 200) for done in range(200)]


def test_what_they_do_not_depend_on_is_not(root: Path) -> None:
    CIFAR10DVS().open(root, seed=0, T=T)
    for data in (CIFAR10DVS(split="first90"), CIFAR10DVS(split_seed=3), CIFAR10DVS(augment=False)):
        data.open(root, seed=5, T=T, progress=lambda *_: pytest.fail("made again"))


def test_other_recordings_are_not_answered_from_the_cache(root: Path) -> None:
    data = CIFAR10DVS(size=128, split="files0-899")
    data.open(root, seed=0, T=T)
    path = root / "cifar10-dvs" / "airplane" / "cifar10_airplane_18.aedat"
    path.write_bytes(aedat(_rows(9, 18)[:8]))
    x, _ = data.open(root, seed=0, T=T).test[Key(0, 0)]
    assert x.nonzero()[:, 2].unique().tolist() == [127 - 18]


def test_a_damaged_cache_is_made_again(root: Path) -> None:
    expected = CIFAR10DVS().open(root, seed=0, T=T).test[Key(0, 3)][0]
    (path,) = (root / "cache" / "cifar10-dvs").iterdir()
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    calls = []
    splits = CIFAR10DVS().open(root, seed=0, T=T, progress=lambda *now: calls.append(now))
    assert len(calls) == 200
    assert torch.equal(splits.test[Key(0, 3)][0], expected)


@pytest.mark.parametrize("split", list(SPLITS))
def test_splits_have_the_members_they_say(root: Path, split) -> None:
    splits = CIFAR10DVS(size=128, split=split).open(root, seed=0, T=T)
    assert (len(splits.train), len(splits.test)) == (180, 20)
    found = list(_numbers(splits))
    if split == "files0-899":
        assert found == [(label, number) for label in range(10) for number in (18, 19)]
    elif split == "first90":  # by name: 0, 1, 10, 11, ..., 19, 2, 3, ..., 9
        assert found == [(label, number) for label in range(10) for number in (8, 9)]
    else:
        assert len(set(found)) == 20
        assert found != list(_numbers(CIFAR10DVS(size=128, split_seed=1).open(root, seed=0, T=T)))
        assert found == list(_numbers(CIFAR10DVS(size=128).open(root, seed=1, T=T)))


def test_the_published_sizes() -> None:
    for split in SPLITS:
        test = held_out_mask(10_000, split, 0)
        assert int(test.sum()) == 1000
        per_class = test.view(10, 1000).sum(1)
        assert (per_class == 100).all() or split == "random"
    assert held_out_mask(10_000, "random", 0).nonzero()[:4, 0].tolist() == [2, 25, 35, 36]


def test_training_recordings_alone_are_flipped_and_rolled(root: Path) -> None:
    plain = CIFAR10DVS(augment=False, size=128).open(root, seed=0, T=T)
    moved = CIFAR10DVS(size=128).open(root, seed=0, T=T)
    rows, columns = set(), set()
    for index in range(120):
        x, y = plain.train[Key(0, index)][0], moved.train[Key(0, index)][0]
        assert x.sum() == y.sum()
        down, right = (y.nonzero()[0, 2:] - x.nonzero()[0, 2:] + 64) % 128 - 64
        rows.add(int(down))
        columns.add(int(right))
        assert torch.equal(plain.test[Key(0, index % 20)][0], moved.test[Key(index, index % 20)][0])
    assert rows == set(range(-5, 6))
    rolled = set(range(-5, 6))
    assert rolled < columns, "some are flipped besides, which moves them further"


def test_missing_recordings_are_counted_and_the_source_named(root: Path) -> None:
    assert CIFAR10DVS().missing(root) == []
    for number in (3, 11):
        (root / "cifar10-dvs" / "cat" / f"cifar10_cat_{number}.aedat").unlink()
    (problem,) = CIFAR10DVS().missing(root)
    assert problem.where.endswith("cat")
    assert problem.what == "2 of 20 recordings absent, first cifar10_cat_3.aedat"
    assert "figshare" in problem.fix
    with pytest.raises(DataError, match=r"cifar10_cat_3\.aedat"):
        CIFAR10DVS().open(root, seed=0, T=T)
    (problem,) = CIFAR10DVS().missing(root / "nowhere")
    assert "no such folder" in problem.what


def test_a_damaged_recording_is_named_and_nothing_is_cached(root: Path) -> None:
    path = root / "cifar10-dvs" / "truck" / "cifar10_truck_7.aedat"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"cifar10_truck_7\.aedat, byte"):
        CIFAR10DVS().open(root, seed=0, T=T)
    assert not (root / "cache").exists()


def test_size_must_be_positive() -> None:
    with pytest.raises(UserError, match="size = 0"):
        CIFAR10DVS(size=0)


@pytest.mark.real_data
def test_on_real_recordings_of_the_same_camera(
    real_data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten real DVS128 recordings in the layout of CIFAR10-DVS, which is not available here."""
    monkeypatch.setattr("rmploss.data.cifar10_dvs.PER_CLASS", 1)
    paths = sorted((real_data_root / "dvs128_objects" / "raw").glob("*/*.aedat"))
    for path, name in zip(paths[:10], CIFAR10DVS.classes, strict=True):
        folder = tmp_path / "cifar10-dvs" / name
        folder.mkdir(parents=True)
        (folder / f"cifar10_{name}_0.aedat").symlink_to(path.resolve())
    splits = CIFAR10DVS(augment=False).open(tmp_path, seed=0, T=10)
    x = torch.stack([splits.train[Key(0, i)][0] for i in range(9)])
    assert x.shape == (9, 10, 2, 48, 48)
    assert x.unique().tolist() == [0, 1]
    assert np.ptp(x.mean((0, 2, 3, 4)).numpy()) < 0.2, "frames are about equally full"
