from pathlib import Path

import numpy as np
import pytest
import torch

from rmploss.data import Key, batches
from rmploss.data.aedat import read_aedat
from rmploss.data.dvs128_objects import FILES, FOLDER, DVS128Objects
from rmploss.data.events import to_frames
from rmploss.errors import DataError, UserError
from tests.data.files import aedat

# How long after the first event the published windows begin, in microseconds (by trial).
MOVED = {"caixa": 10, "caneca": 150, "celular": 120, "mouse": 110}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """8 s, an event each 10 ms, whose column is the second and whose row is the recording."""
    (tmp_path / FOLDER).mkdir(parents=True)
    for number, file in enumerate(FILES.values()):
        rows = [(1_000_000 + 10_000 * i, i // 100, number, i % 2) for i in range(800)]
        rows.append((8_999_999, 7, number, 1))
        (tmp_path / FOLDER / file).write_bytes(aedat(rows))
    return tmp_path


def test_split_is_by_time_with_a_gap(root: Path) -> None:
    data = DVS128Objects(size=128, augment=False, window_ms=500, stride_ms=250)
    splits = data.open(root, seed=0, T=2)
    # 8 s: trains on windows within 0..6 s, tests on whole windows from 6.5 s on.
    assert splits.train.labels.bincount().tolist() == [23] * 7
    assert splits.test.labels.bincount().tolist() == [3] * 7
    for split, allowed in ((splits.train, set(range(6))), (splits.test, {6, 7})):
        for index, label in enumerate(split.labels.tolist()):
            x, same = split[Key(0, index)]
            assert same == label
            assert x.shape == data.shape(2) == (2, 2, 128, 128)
            places = x.nonzero()
            assert set(places[:, 2].tolist()) == {127 - label}, "row 0 is on top"
            assert set(places[:, 3].tolist()) <= allowed


def test_training_windows_move_and_test_windows_do_not(root: Path) -> None:
    plain = DVS128Objects(augment=False, size=128).open(root, seed=0, T=2)
    moved = DVS128Objects(size=128).open(root, seed=0, T=2)
    different = [
        not torch.equal(plain.train[Key(0, i)][0], moved.train[Key(0, i)][0]) for i in range(20)
    ]
    assert sum(different) > 10
    assert torch.equal(plain.test[Key(0, 0)][0], moved.test[Key(1, 0)][0])


def test_too_long_windows_are_refused_with_the_longest_possible(root: Path) -> None:
    with pytest.raises(UserError, match="at most 1000"):
        DVS128Objects(window_ms=1500).open(root, seed=0, T=2)
    DVS128Objects(window_ms=1000).open(root, seed=0, T=2)


def test_all_wrong_options_are_reported_at_once() -> None:
    with pytest.raises(UserError) as caught:
        DVS128Objects(window_ms=0, stride_ms=-1)
    assert "window_ms = 0" in str(caught.value)
    assert "stride_ms = -1" in str(caught.value)


def test_missing_recordings_are_named(root: Path) -> None:
    assert DVS128Objects().missing(root) == []
    (root / FOLDER / "Mouse.aedat").unlink()
    (problem,) = DVS128Objects().missing(root)
    assert problem.where.endswith("Mouse.aedat")
    assert "eberlawrence/DVS128_BioLab" in problem.fix
    with pytest.raises(DataError, match=r"Mouse\.aedat"):
        DVS128Objects().open(root, seed=0, T=2)


@pytest.mark.real_data
def test_real_recordings(real_data_root: Path) -> None:
    splits = DVS128Objects().open(real_data_root, seed=0, T=10)
    assert splits.train.labels.bincount().min() > 100
    assert splits.test.labels.bincount().min() > 5
    options = {"epoch": 0, "seed": 0, "shuffle": True, "drop_last": True}
    x, _ = next(batches(splits.train, batch_size=32, **options))
    assert x.shape == (10, 32, 2, 48, 48)
    assert x.unique().tolist() == [0, 1]
    assert 0.005 < float(x.mean()) < 0.05


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["caixa", "caneca", "celular", "mouse"])
def test_reader_agrees_with_frames_that_others_made(name: str, real_data_root: Path) -> None:
    """net: ON - OFF counts of windows of 50 ms, as the publisher of the recordings has them."""
    with np.load(real_data_root / "dvs128_objects" / "frames_50ms_net.npz") as published:
        index = [str(word) for word in published["classes_pt"]].index(name)
        net = published["net"][index]
    events = read_aedat(real_data_root / FOLDER / f"{name.capitalize()}.aedat")
    start = int(events.t[0]) + MOVED[name]
    window = (start, start + len(net) * 50_000)
    counts = to_frames(
        events.between(*window),
        len(net),
        sensor=(128, 128),
        frames="count",
        integrate="time",
        window=window,
    ).astype(int)
    ours = (counts[:, 1] - counts[:, 0])[:, ::-1]  # row 127 - y
    equal = (ours == net).all((1, 2))
    assert equal.sum() >= 268
    assert np.abs(ours - net).sum() <= 60
