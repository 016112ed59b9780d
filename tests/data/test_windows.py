"""Windows of long recordings: which part of time trains, which tests, and what a file predicts."""

import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmploss.data import Key, _class_folders, _own_folder
from rmploss.data.event_folder import EventFolder
from rmploss.data.events import Events, to_frames
from rmploss.errors import DataError, UserError
from tests.data.files import save_npz

W, H, T = 20, 12, 3
MS = 1000


def recording(seed: int, length_ms: int = 1000) -> Events:
    """Ten events a millisecond, the first at 5 s, the last in the last microsecond."""
    draw = np.random.default_rng(seed)
    n = 10 * length_ms
    t = np.sort(draw.integers(0, length_ms * MS, n))
    t[0], t[-1] = 0, length_ms * MS - 1
    columns = (draw.integers(0, most, n) for most in (W, H, 2))
    return Events(5_000_000 + t, *columns)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """`tmp_path/own/{a,b}/long.npz`: one recording of each class."""
    for label, name in enumerate("ab"):
        save_npz(tmp_path / "own" / name / "long.npz", recording(label))
    return tmp_path / "own"


def data(path: Path, **options: Any) -> EventFolder:
    base = {"size": 6, "window_ms": 100, "integrate": "time", "augment": False}
    return EventFolder(path=str(path), sensor=(W, H), **{**base, **options})


def frames_at(label: int, start_ms: int) -> torch.Tensor:
    """The frames of the window of 100 ms that begins there."""
    window = (5_000_000 + start_ms * MS, 5_000_000 + (start_ms + 100) * MS)
    made = to_frames(recording(label), T, sensor=(H, W), size=6, integrate="time", window=window)
    return torch.from_numpy(made).float()


@pytest.mark.parametrize("memory", [_own_folder.MEMORY_BYTES, 0])
def test_each_recording_is_split_in_time(
    own: Path, memory: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_own_folder, "MEMORY_BYTES", memory)
    splits = data(own, split="time", test_share=0.4, stride_ms=50).open(None, seed=0, T=T)
    # 600 ms train, one window every 50 ms; a gap of 100 ms; 300 ms test without overlap.
    assert splits.train.labels.tolist() == [0] * 11 + [1] * 11
    assert splits.test.labels.tolist() == [0] * 3 + [1] * 3
    for index in range(11):
        assert torch.equal(splits.train[Key(0, index)][0], frames_at(0, 50 * index))
        assert torch.equal(splits.train[Key(0, 11 + index)][0], frames_at(1, 50 * index))
    for index in range(3):
        assert torch.equal(splits.test[Key(0, index)][0], frames_at(0, 700 + 100 * index))


def test_all_windows_of_a_file_are_in_one_split(tmp_path: Path) -> None:
    for split, numbers in (("train", (0, 1)), ("test", (2,))):
        for name in "ab":
            for number in numbers:
                save_npz(tmp_path / split / name / f"{number}.npz", recording(number))
    splits = data(tmp_path, stride_ms=25).open(None, seed=0, T=T)
    assert splits.train.labels.tolist() == [0] * 74 + [1] * 74
    assert splits.test.labels.tolist() == [0] * 10 + [1] * 10
    assert torch.equal(splits.test[Key(0, 13)][0], frames_at(2, 300))


def test_all_windows_of_a_recording_are_read(own: Path) -> None:
    kind, path = data(own), own / "a" / "long.npz"
    windows = torch.stack([*kind.read_windows(path, T)])
    assert windows.shape == (10, *kind.shape(T))
    assert torch.equal(windows[4], frames_at(0, 400))
    assert torch.equal(kind.read(path, T), windows[0])
    whole = data(own, window_ms=None)
    assert torch.equal(next(whole.read_windows(path, T)), whole.read(path, T))


def test_a_window_without_events_is_dark(tmp_path: Path) -> None:
    events = recording(0)
    late = Events(events.t + 2_000_000, events.x, events.y, events.p)
    both = Events(*(np.concatenate([getattr(e, f) for e in (events, late)]) for f in "txyp"))
    save_npz(tmp_path / "a.npz", both)
    windows = torch.stack([*data(tmp_path).read_windows(tmp_path / "a.npz", T)])
    assert len(windows) == 30
    assert windows[9].any()
    assert not windows[10:20].any()


def test_windows_of_unsorted_events_are_refused(own: Path) -> None:
    """A binary search in them would leave events out without a word."""
    events = recording(0)
    middle = len(events) // 2
    swapped = Events(*(np.roll(getattr(events, field), middle) for field in "txyp"))
    path = own / "a" / "long.npz"
    save_npz(path, swapped)
    kind = data(own, split="time", test_share=0.4)
    message = rf"long\.npz: events\.t.*event {middle}: time runs back.*sort the events by time"
    for fails in (
        lambda: next(kind.read_windows(path, T)),
        lambda: kind.stored(path, T),
        lambda: kind.open(None, seed=0, T=T),
    ):
        with pytest.raises(DataError, match=message):
            fails()


def test_windows_of_events_outside_of_the_sensor_are_refused(own: Path) -> None:
    events = recording(0)
    save_npz(own / "a" / "long.npz", Events(events.t, events.x + 1, events.y, events.p))
    with pytest.raises(DataError, match=r"long\.npz.*outside of 0 to 19.*data.sensor=\(21,12\)"):
        data(own, split="time").open(None, seed=0, T=T)


def test_a_small_file_does_not_ask_for_countless_windows(own: Path) -> None:
    """Two events far apart: the count of windows is arithmetic, and bounded."""
    two = np.array([0, 1])
    path = own / "a" / "long.npz"
    save_npz(path, Events(two << 49, two, two, two))
    count = (1 << 49) // (100 * MS)
    with pytest.raises(DataError, match=f"from 0 to {(1 << 49) + 1} us there are {count} windows"):
        data(own).stored(path, T)
    with pytest.raises(DataError, match=r"data\.window_ms=2814750"):
        next(data(own).read_windows(path, T))
    with pytest.raises(DataError, match=r"data\.stride_ms=1407375"):
        data(own, split="time", test_share=0.5, stride_ms=10).open(None, seed=0, T=T)
    assert next(data(own, window_ms=2814750).read_windows(path, T)).any()


def test_memory_is_counted_before_frames_are_made(
    own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads that read at once together stay within the bound."""
    for number in range(12):
        save_npz(own / "a" / f"{number}.npz", recording(number))
    kind = data(own, split="time", test_share=0.4)
    each = 9 * int(np.prod(kind.shape(T)))  # five windows train, three or four test
    monkeypatch.setattr(_own_folder, "MEMORY_BYTES", 2 * each)
    held, most, lock = 0, 0, threading.Lock()
    cut = EventFolder.cut

    def counted(self: EventFolder, *given: Any) -> torch.Tensor:
        nonlocal held, most
        frames = cut(self, *given)
        with lock:
            held += frames.nbytes
            most = max(most, held)
        return frames

    monkeypatch.setattr(EventFolder, "cut", counted)
    splits = kind.open(None, seed=0, T=T)
    assert 0 < most <= 2 * each
    assert torch.equal(splits.train[Key(0, 0)][0], frames_at(0, 0))


@pytest.mark.parametrize(("fit", "most"), [(0, 1), (2, 2), (100, 4)])
def test_events_of_recordings_that_are_read_at_once_stay_within_the_bound(
    fit: int, most: int, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(12):
        save_npz(own / "ab"[number % 2] / f"{number}.npz", recording(number))
    largest = max(file.stat().st_size for file in own.rglob("*.npz"))
    monkeypatch.setattr(_class_folders, "AT_ONCE_BYTES", fit * (16 * largest + 1))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    reading, lock, met, original = 0, threading.Lock(), [], EventFolder.events

    def events(self: EventFolder, path: Path) -> Events:
        nonlocal reading
        with lock:
            reading += 1
            met.append(reading)
        time.sleep(0.02)
        found = original(self, path)
        with lock:
            reading -= 1
        return found

    monkeypatch.setattr(EventFolder, "events", events)
    for options in ({"split": "time", "test_share": 0.4}, {"window_ms": None}):
        met.clear()
        data(own, **options).open(None, seed=0, T=T)
        assert max(met) == most


def test_windows_without_events_are_told(own: Path) -> None:
    events = recording(0)
    dark = (events.t - 5_000_000) // (100 * MS) == 2
    path = own / "a" / "long.npz"
    save_npz(path, Events(*(getattr(events, field)[~dark] for field in "txyp")))
    with pytest.warns(RuntimeWarning, match=r"1 windows hold no event.*long\.npz from 52"):
        data(own, split="time", test_share=0.4).open(None, seed=0, T=T)
    save_npz(path, events)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data(own, split="time", test_share=0.4).open(None, seed=0, T=T)


def test_recordings_that_are_too_short(tmp_path: Path, own: Path) -> None:
    save_npz(own / "b" / "short.npz", recording(5, length_ms=80))
    with pytest.raises(DataError, match=r"short\.npz.*lasts 80 ms.*data.window_ms=80 or less"):
        next(data(own).read_windows(own / "b" / "short.npz", T))
    with pytest.raises(DataError, match=r"short\.npz.*no window for training or for tests"):
        data(own, split="time").open(None, seed=0, T=T)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window_ms": 0}, "window_ms = 0"),
        ({"stride_ms": 0}, "stride_ms = 0"),
        ({"window_ms": None, "stride_ms": 5}, "stride_ms = 5.*is of windows"),
        ({"window_ms": None, "split": "time"}, "split = 'time'.*is of windows"),
    ],
)
def test_options_that_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        data(Path(), **options)


def test_a_split_in_time_of_split_folders_is_refused(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for name in "ab":
            save_npz(tmp_path / split / name / "1.npz", recording(0))
    (problem,) = data(tmp_path, split="time").missing(None)
    assert "leave out data.split=time" in problem.fix
