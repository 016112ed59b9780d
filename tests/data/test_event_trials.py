"""Long recordings with label files, as DVS128 Gesture has them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from rmploss import recipes
from rmploss.data import Key
from rmploss.data._label_files import in_order
from rmploss.data.event_trials import EventTrials
from rmploss.data.events import Events, to_frames
from rmploss.engine.own_data import changes_for
from rmploss.engine.train import train
from rmploss.errors import DataError
from tests.data.files import HEADER3, aedat3
from tests.engine.runs import TINY

W = H = 128
T = 3
LABELS = "class,startTime_usec,endTime_usec\n1,1000,201000\n3,301000,501000\n11,601000,801000\n"
CLASSES = ("hand_clapping", "left_wave", "other")


def recording(seed: int) -> Events:
    """One second of random events."""
    draw = np.random.default_rng(seed)
    columns = (draw.integers(0, most, 5000) for most in (W, H, 2))
    return Events(np.sort(draw.integers(0, 10**6, 5000)), *columns)


@pytest.fixture
def gestures(tmp_path: Path) -> Path:
    """Three recordings (AEDAT 3.1), their labels, names of the classes and lists of the splits."""
    folder = tmp_path / "gestures"
    folder.mkdir()
    for number in range(3):
        name = f"user0{number}_lab"
        (folder / f"{name}.aedat").write_bytes(HEADER3 + aedat3(recording(number)))
        (folder / f"{name}_labels.csv").write_text(LABELS)
    mapping = "action,label\nhand_clapping,1\nright_wave,2\nleft_wave,3\nother,11\n"
    (folder / "gesture_mapping.csv").write_text(mapping)
    (folder / "trials_to_train.txt").write_text("user00_lab.aedat\nuser01_lab.aedat\n")
    (folder / "trials_to_test.txt").write_text("user02_lab.aedat\n")
    return folder


def data(path: Path, **options: Any) -> EventTrials:
    return EventTrials(path=str(path), **{"size": 8, "augment": False, **options})


def test_every_trial_is_a_sample_of_its_class(gestures: Path) -> None:
    kind = data(gestures)
    assert kind.settled(None) == {"path": str(gestures), "classes": CLASSES}
    assert kind.notes(None) == []
    splits = kind.open(None, seed=0, T=T)
    assert splits.train.labels.tolist() == [0, 1, 2] * 2
    assert splits.test.labels.tolist() == [0, 1, 2]
    expected = to_frames(recording(1), T, sensor=(H, W), size=8, window=(301_000, 501_000))
    assert torch.equal(splits.train[Key(0, 4)][0], torch.from_numpy(expected).float())


def test_windows_lie_within_the_trials(gestures: Path) -> None:
    kind = data(gestures, window_ms=80, stride_ms=40, integrate="time")
    splits = kind.open(None, seed=0, T=T)
    assert splits.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4 + [0] * 4 + [1] * 4 + [2] * 4
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    expected = to_frames(
        recording(2),
        T,
        sensor=(H, W),
        size=8,
        integrate="time",
        window=(381_000, 461_000),
    )
    assert torch.equal(splits.test[Key(0, 3)][0], torch.from_numpy(expected).float())


def test_folders_or_a_share_split_without_lists(gestures: Path) -> None:
    for name in ("trials_to_train.txt", "trials_to_test.txt"):
        (gestures / name).unlink()
    splits = data(gestures, test_share=0.6).open(None, seed=0, T=T)
    assert len(splits.train) + len(splits.test) == 9
    assert len(splits.test) % 3 == 0
    for split, numbers in (("train", (0, 1)), ("test", (2,))):
        (gestures / split).mkdir()
        for number in numbers:
            for path in gestures.glob(f"user0{number}*"):
                path.rename(gestures / split / path.name)
    assert len(data(gestures).open(None, seed=0, T=T).train) == 6


def test_names_of_classes_are_labels_without_a_mapping(gestures: Path) -> None:
    (gestures / "gesture_mapping.csv").unlink()
    assert data(gestures).settled(None)["classes"] == ("1", "3", "11")
    for path in gestures.glob("*_labels.csv"):
        path.write_text(LABELS.replace("11,", "wave,").replace("\n3,", "\nclap,"))
    assert data(gestures).settled(None)["classes"] == ("1", "clap", "wave")


def test_what_may_not_be_meant_is_noted(gestures: Path) -> None:
    (gestures / "user02_lab_labels.csv").write_text("\n".join(LABELS.splitlines()[:3]))
    (gestures / "user09_lab.aedat").write_bytes(b"")
    tested, bare = data(gestures).notes(None)
    assert tested == "no recording tests the class other"
    assert "1 recordings have no label file" in bare
    assert "user09" in bare


HEAD = "class,startTime_usec,endTime_usec\n"


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ("", r"line 1.*lacks the column class"),
        ("class,start,stop\n1,2,3\n", "line 1.*lacks the column startTime_usec"),
        (HEAD, "line 2.*has no line"),
        (HEAD + "1,0,5\n1,5\n", "line 3.*too few columns"),
        (HEAD + "1,0,x\n", "line 2.*no whole number"),
        (HEAD + "1,7,7\n", "line 2.*ends at 7, not after 7"),
        (HEAD + ",1,7\n", "line 2.*names no class"),
        (HEAD + "1,1_000,2_000\n", "line 2.*a time is no whole number: '1_000'"),
        (HEAD + "1,1,\u0662\n", "line 2.*no whole number"),
        (HEAD + f"1,1,{'9' * 5000}\n", "line 2.*no whole number"),
        ("class," + HEAD + "1,2,0,5\n", "line 1.*has the column class twice"),
        (HEAD + "1,0,5\n3,5,9\n3,0,5\n", "line 4.*has the times of line 2"),
        pytest.param(
            HEAD + "1,0,5\n" + 200_000 * "1" + ",0,5\n",
            "line 3.*field larger than field limit",
            id="long",
        ),
    ],
)
def test_label_files_that_cannot_be_read(gestures: Path, labels: str, message: str) -> None:
    (gestures / "user01_lab_labels.csv").write_text(labels)
    with pytest.raises(DataError, match=rf"user01_lab_labels\.csv, {message}"):
        data(gestures).open(None, seed=0, T=T)


@pytest.mark.parametrize("place", ["table", "mapping"])
def test_a_class_has_one_spelling(gestures: Path, place: str) -> None:
    """1 and 01 are one number; in every table 01 is a name like any other."""
    if place == "table":
        (gestures / "user01_lab_labels.csv").write_text(LABELS.replace("\n1,", "\n01,"))
    else:
        for path in gestures.glob("*_labels.csv"):
            path.write_text(LABELS.replace("\n1,", "\n01,"))
    (problem,) = data(gestures).missing(None)
    assert problem.what == "the class 1 is written 01 and 1"
    for path in gestures.glob("*_labels.csv"):
        path.write_text(LABELS.replace("\n1,", "\n01,"))
    (gestures / "gesture_mapping.csv").unlink()
    assert data(gestures).settled(None)["classes"] == ("01", "3", "11")


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("clap,1\nwave,1\n", "names the class 1, as a line above does"),
        ("clap,1\nclap,3\n", "gives 1 and 3 the same name, clap"),
        ("3,1\n", "gives 1 and 3 the same name, 3"),
    ],
)
def test_a_mapping_names_each_class_once(gestures: Path, mapping: str, message: str) -> None:
    (gestures / "gesture_mapping.csv").write_text("action,label\n" + mapping)
    (problem,) = data(gestures).missing(None)
    assert "gesture_mapping.csv" in problem.where
    assert problem.what == message


def test_a_table_of_labels_is_that_of_one_recording(gestures: Path) -> None:
    for name in ("user01_lab.npz", "user01_lab.b.npz"):  # one between them in order of names
        (gestures / name).write_bytes(b"")
    (gestures / "user01_lab.b_labels.csv").write_text(LABELS)
    (problem,) = data(gestures).missing(None)
    assert "user01_lab_labels.csv" in problem.where
    assert problem.what == "is that of two recordings, user01_lab.aedat and user01_lab.npz"


@pytest.mark.parametrize("ending", ["", ".aedat"])
def test_names_of_recordings_may_have_dots(gestures: Path, ending: str) -> None:
    for path in gestures.glob("user01_lab*"):
        path.rename(gestures / path.name.replace("user01_lab", "user.01"))
    (gestures / "trials_to_train.txt").write_text(f"user00_lab{ending}\nuser.01{ending}\n")
    assert data(gestures).notes(None) == []
    assert len(data(gestures).open(None, seed=0, T=T).train) == 6


def test_a_camera_that_seems_smaller_is_noted(gestures: Path) -> None:
    for path in gestures.glob("*.aedat"):
        small = recording(0)
        small = Events(small.t, small.x % 34, small.y % 34, small.p)
        path.write_bytes(HEADER3 + aedat3(small))
    (note,) = data(gestures).notes(None)
    assert "--set 'data.sensor=(34,34)'" in note


def test_labels_of_another_recording(gestures: Path) -> None:
    (gestures / "user01_lab_labels.csv").write_text(HEAD + "1,5000000,6000000\n")
    with pytest.raises(DataError, match="leaves the recording"):
        data(gestures).open(None, seed=0, T=T)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1,500000,6000000", "500000 to 6000000 us.*leaves the recording, whose events are from"),
        (f"1,500000,{10**30}", "leaves the recording"),
        (f"1,-{10**30},500000", "leaves the recording"),
        ("1,1000050,1000090", "no event lies in it"),
    ],
)
def test_parts_that_are_not_of_the_recording(gestures: Path, line: str, message: str) -> None:
    (gestures / "user01_lab_labels.csv").write_text(HEAD + line + "\n")
    for options in ({}, {"window_ms": 100}):
        with pytest.raises(DataError, match=rf"user01_lab_labels\.csv: {message}|{message}"):
            data(gestures, **options).open(None, seed=0, T=T)


def test_packets_far_apart_do_not_ask_for_countless_windows(gestures: Path) -> None:
    late = recording(0)
    late = Events(late.t + (0x7FFFFFFF << 31), late.x, late.y, late.p)
    path = gestures / "user01_lab.aedat"
    path.write_bytes(HEADER3 + aedat3(recording(1)) + aedat3(late))
    for options in ({}, {"window_ms": 100}):
        with pytest.raises(DataError, match=r"user01_lab\.aedat: events\.t.*35 years"):
            data(gestures, **options).open(None, seed=0, T=T)


def test_lists_that_are_no_text(gestures: Path) -> None:
    (gestures / "trials_to_test.txt").write_bytes(b"\xff\xfe\x00")
    (problem,) = data(gestures).missing(None)
    assert "trials_to_test.txt" in problem.where


def test_what_the_lists_leave_out_is_noted(gestures: Path) -> None:
    (gestures / "trials_to_train.txt").write_text("user00_lab.aedat\n\nuser07.aedat\n")
    bare, absent = data(gestures).notes(None)
    assert bare.startswith("1 recordings are in none of trials_to_train.txt and trials_to_test")
    assert bare.endswith("first user01_lab")
    assert absent.startswith("1 names in trials_to_train.txt and")
    assert absent.endswith("first user07")


@pytest.mark.parametrize(
    ("written", "ordered"),
    [
        ({"10", "9", "-1"}, ["-1", "9", "10"]),
        ({"01", "1", "001"}, ["001", "01", "1"]),
        ({"--5", "3"}, ["--5", "3"]),
        ({"²", "3"}, ["3", "²"]),
        ({"9" * 5000, "3"}, ["3", "9" * 5000]),
    ],
)
def test_the_order_of_classes(written: set[str], ordered: list[str]) -> None:
    assert in_order(written) == ordered


def test_splits_that_overlap(gestures: Path) -> None:
    (gestures / "trials_to_test.txt").write_text("user01_lab.aedat\n")
    with pytest.raises(DataError, match=r"user01_lab is in trials_to_train.txt, too"):
        data(gestures).open(None, seed=0, T=T)


def test_other_classes_than_those_of_the_run(gestures: Path) -> None:
    (problem,) = data(gestures, classes=("a", "b")).missing(None)
    assert "has 3 classes, the recipe 2" in problem.what


def test_a_table_beside_images_is_no_label_file(tmp_path: Path) -> None:
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "x_labels.csv").write_text(LABELS)
    (tmp_path / "train_labels.csv").write_text("image,label\n")
    (tmp_path / "train_labels.png").write_bytes(b"")
    changes = changes_for(recipes.get("cifar10-resnet20"), str(tmp_path))
    assert changes["data"] == "folder"
    changes = changes_for(recipes.get("events-resnet20"), str(tmp_path))
    assert changes == {"data.path": str(tmp_path)}


def test_the_flag_finds_the_label_files(gestures: Path, tmp_path: Path) -> None:
    for recipe in ("events-resnet20", "cifar10-resnet20"):
        changes = changes_for(recipes.get(recipe), str(gestures))
        assert changes["data"] == "event-trials"
    base = TINY.but(data=recipes.use("digits-events"), train_samples=None, test_samples=None)
    changes = changes_for(base, str(gestures)) | {"batch_size": 4, "epochs": 1}
    path = train(recipes.override(base, changes), tmp_path / "runs")
    assert (path / "result.json").is_file()
