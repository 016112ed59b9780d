"""Recordings of a user: formats, frames, and files that cannot be read."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmploss import recipes
from rmploss.cli.common import assignments
from rmploss.data import Key, _own_folder
from rmploss.data.aedat import read_aedat
from rmploss.data.dvs128_objects import FILES, FOLDER
from rmploss.data.event_folder import EventFolder
from rmploss.data.events import Events, to_frames
from rmploss.data.recordings import read_recording
from rmploss.engine.own_data import changes_for
from rmploss.engine.train import train
from rmploss.errors import DataError, UserError
from tests.data.files import HEADER3, aedat, aedat3, save_npz
from tests.engine.runs import TINY

W, H, T = 20, 12, 3


def recording(seed: int, n: int = 60) -> Events:
    """Random events in order of time."""
    draw = np.random.default_rng(seed)
    return Events(
        t=np.sort(draw.integers(0, 1 << 20, n)),
        x=draw.integers(0, W, n),
        y=draw.integers(0, H, n),
        p=draw.integers(0, 2, n),
    )


def save_structured(path: Path, events: Events) -> None:
    rows = np.zeros(len(events), [("timestamp", "i8"), ("x", "u2"), ("y", "u2"), ("on", "?")])
    rows["timestamp"], rows["x"], rows["y"], rows["on"] = events.t, events.x, events.y, events.p
    np.save(path, rows)


def save_signed(path: Path, events: Events) -> None:
    """Polarities -1 and 1, times in seconds."""
    np.savez(path, x=events.x, y=events.y, t=events.t / 1e6, p=2 * events.p - 1)


def save_bin(path: Path, events: Events) -> None:
    high = events.p << 7 | events.t >> 16
    columns = (events.x, events.y, high, events.t >> 8 & 255, events.t & 255)
    path.write_bytes(np.stack(columns, 1).astype(np.uint8).tobytes())


def save_dat(path: Path, events: Events) -> None:
    rows = np.zeros(len(events), [("t", "<u4"), ("address", "<u4")])
    rows["t"] = events.t
    rows["address"] = events.x | events.y << 14 | events.p << 28
    path.write_bytes(b"% Version 2\n% Width 20\n\x00\x08" + rows.tobytes())


def save_aedat3(path: Path, events: Events) -> None:
    path.write_bytes(HEADER3 + aedat3(events))


SAVE: dict[str, tuple[str, Callable[[Path, Events], None]]] = {
    "npz": (".npz", save_npz),
    "structured": (".npy", save_structured),
    "signed": (".npz", save_signed),
    "bin": (".bin", save_bin),
    "dat": (".DAT", save_dat),
    "aedat3": (".aedat", save_aedat3),
}


@pytest.mark.parametrize("form", SAVE)
def test_every_format_gives_the_same_events(tmp_path: Path, form: str) -> None:
    suffix, save = SAVE[form]
    save(tmp_path / f"a{suffix}", recording(0))
    found, expected = read_recording(tmp_path / f"a{suffix}", (H, W)), recording(0)
    for field in "txyp":
        values = getattr(found, field)
        assert values.dtype == np.int64
        assert values.tolist() == getattr(expected, field).tolist()


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """`tmp_path/own/{train,test}/{a,b}/N.npz`."""
    for split, numbers in (("train", range(4)), ("test", range(4, 6))):
        for label, name in enumerate("ab"):
            (tmp_path / "own" / split / name).mkdir(parents=True)
            for number in numbers:
                place = tmp_path / "own" / split / name / f"{number}.npz"
                save_npz(place, recording(10 * label + number))
    return tmp_path / "own"


def data(path: Path, **options: Any) -> EventFolder:
    return EventFolder(path=str(path), sensor=(W, H), **{"size": 6, **options})


@pytest.mark.parametrize("memory", [_own_folder.MEMORY_BYTES, 0])
def test_samples_are_frames(own: Path, memory: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_own_folder, "MEMORY_BYTES", memory)
    splits = data(own).open(None, seed=0, T=T)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4
    x, label = splits.test[Key(0, 3)]
    expected = to_frames(recording(15), T, sensor=(H, W), size=6)
    assert (x.shape, label) == (data(own).shape(T), 1)
    assert torch.equal(x, torch.from_numpy(expected).float())
    assert torch.equal(data(own).read(own / "test" / "b" / "5.npz", T), x)
    plain = data(own, augment=False).open(None, seed=0, T=T).train
    assert torch.equal(plain[Key(0, 1)][0], plain[Key(1, 1)][0])
    assert not torch.equal(splits.train[Key(0, 1)][0], splits.train[Key(1, 1)][0])


def test_one_polarity_holds_the_events_of_both(own: Path) -> None:
    options: dict[str, Any] = {"size": None, "frames": "count", "integrate": "time"}
    path = own / "test" / "a" / "4.npz"
    two = data(own, **options).stored(path, T)
    one = data(own, polarity="one", **options).stored(path, T)
    assert one.shape == data(own, polarity="one", **options).shape(T) == (T, 1, H, W)
    assert torch.equal(one.int(), two.int().sum(1, keepdim=True))


def test_aedat_has_row_0_on_top(tmp_path: Path) -> None:
    (tmp_path / "a.aedat").write_bytes(aedat([(0, 5, 127, 1), (1, 6, 126, 0)]))
    events = read_recording(tmp_path / "a.aedat", (128, 128))
    assert (events.x.tolist(), events.y.tolist()) == ([5, 6], [0, 1])


@pytest.mark.real_data
def test_a_real_recording_as_arrays_gives_the_same_frames(
    real_data_root: Path, tmp_path: Path
) -> None:
    source = real_data_root / FOLDER / FILES["mug"]
    events = read_aedat(source)
    upright = Events(events.t, events.x, 127 - events.y, events.p)
    save_npz(tmp_path / "mug.npz", upright)
    kind = EventFolder(integrate="time")
    frames = kind.stored(tmp_path / "mug.npz", 10)
    assert frames.any()
    assert torch.equal(frames, kind.stored(source, 10))


def arrays(**changes: Any) -> dict[str, Any]:
    events = recording(0)
    return {name: getattr(events, name) for name in "txyp"} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"x": np.zeros(3)}, "not one length"),
        ({"x": np.zeros((60, 2))}, "not one length"),
        ({"p": np.full(60, "a")}, "array p holds no numbers"),
        ({"y": np.full(60, 0.5)}, "array y holds fractions"),
        ({"t": np.full(60, np.nan)}, "a time is not finite"),
        ({name: np.zeros(0) for name in "txyp"}, "it holds no events"),
        ({"x": np.full(60, W)}, r"outside of 0 to 19.*data.sensor=\(21,12\)"),
        ({"t": np.arange(60)[::-1]}, "time runs back.*sort the events by time"),
        ({"t": np.array([*range(59), 1 << 50])}, "from 0 to 1125899906842624 us is 35 years"),
        ({"t": np.array([*range(59), 1e300])}, "array t holds numbers beyond 2.62"),
        ({"t": np.full(60, (1 << 64) - 1, np.uint64)}, "array t holds numbers beyond 2.62"),
        ({"x": np.full(60, 1e30)}, "array x holds numbers beyond 2.62"),
        ({"p": np.full(60, 2)}, "events.p: event 0: 2 is outside of 0 to 1"),
        ({"t": np.array([None] * 60, object)}, "pickle"),
    ],
)
def test_arrays_that_are_no_recording(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    np.savez(tmp_path / "a.npz", **arrays(**changes), allow_pickle=True)
    with pytest.raises(DataError, match=message):
        data(tmp_path).stored(tmp_path / "a.npz", T)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npz", b"", "a.npz"),
        ("a.npz", b"PK\x03\x04 cut off", "a.npz"),
        ("a.npy", b"\x93NUMPY", "a.npy"),
        ("a.dat", b"", "not Prophesee's format"),
        ("a.dat", b"% no end", "a header line without end"),
        ("a.dat", b"% x\n\x00\x04", "another size than 8 bytes"),
        ("a.dat", b"% x\n\x00\x08", "holds no events"),
        ("a.dat", b"% x\n\x00\x08abc", "byte 6: the last event is cut off"),
        ("a.bin", bytes([W, 0, 0, 0, 0]), "a pixel outside 20x12"),
        ("a.aedat4", b"#!AER-DAT2.0\r\n", "not AEDAT 4.0"),
        ("a.aedat", b"#!AER-DAT3.0\r\n", "is AEDAT 3.0; 1.0, 2.0, 3.1 and 4.0 are read"),
        ("a.aedat", b"#!AER-DAT3.10\r\n", "is AEDAT 3.10; 1.0"),
        ("a.aedat", b"#!AER-DAT4.0\n", "not AEDAT 4.0"),
        ("a.raw", b"", "is none of .npz"),
    ],
)
def test_damaged_recordings(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        data(tmp_path).stored(tmp_path / name, T)


def test_a_file_without_names(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 4)))
    np.savez(tmp_path / "b.npz", x=np.zeros(5), time=np.zeros(5))
    for name, message in (("a.npy", "has no array x .x., but none"), ("b.npz", "but x, time")):
        with pytest.raises(DataError, match=message):
            data(tmp_path).stored(tmp_path / name, T)
    with pytest.raises(DataError, match="no such file"):
        data(tmp_path).stored(tmp_path / "c.npz", T)


@pytest.mark.parametrize("layout", ["splits", "share", "time"])
def test_a_camera_that_seems_smaller_is_noted(own: Path, layout: str) -> None:
    """Its size is not in the files: (128, 128) is taken, and most of the frames would be dark."""
    path = own if layout == "splits" else own / "train"
    window: dict[str, Any] = {"split": "time", "window_ms": 50} if layout == "time" else {}
    (note,) = EventFolder(path=str(path), **window).notes(None)
    assert "taken for one of 128x128 pixels (data.sensor)" in note
    assert f"--set 'data.sensor=({W},{H})'" in note
    assert "data.sensor" in note.partition("--set")[0]
    words = shlex.split(note[note.index("--set") :])
    assert assignments(words[1:2]) == {"data.sensor": (W, H)}
    assert EventFolder(path=str(path), sensor=(W, H), **window).notes(None) == []
    # One recording that fills most of the sensor, in one direction at least, says that it is none.
    assert EventFolder(path=str(path), sensor=(128, H), **window).notes(None) == []
    bad = sorted(path.rglob("*.npz"))[0]
    bad.write_bytes(b"")
    assert EventFolder(path=str(path), **window).notes(None) == []  # an error, not a note


def test_one_recording_of_a_class_is_enough_to_split_it_in_time(own: Path) -> None:
    for place in (own / "train").iterdir():
        for path in sorted(place.iterdir())[1:]:
            path.unlink()
    kind = EventFolder(path=str(own / "train"), split="time", window_ms=50)
    assert len(kind.notes(None)) == 1
    assert not kind.missing(None)


def test_options_that_are_refused() -> None:
    for wrong in ({"sensor": (128,)}, {"sensor": (0, 5)}, {"size": 0}, {"test_share": 0.0}):
        options: dict[str, Any] = wrong
        with pytest.raises(UserError, match=next(iter(wrong))):
            EventFolder(**options)


def test_a_run_on_recordings(own: Path, tmp_path: Path) -> None:
    base = TINY.but(data=recipes.use("digits-events"), train_samples=None, test_samples=None)
    changes = changes_for(base, str(own))
    assert changes == {"data": "event-folder", "data.path": str(own), "data.size": 16}
    changes |= {"data.sensor": (W, H), "batch_size": 4, "epochs": 1}
    path = train(recipes.override(base, changes), tmp_path / "runs")
    assert (path / "result.json").is_file()
