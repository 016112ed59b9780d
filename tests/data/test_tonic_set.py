"""Data sets of tonic: by name from the installed package, and objects of a user."""

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from rmploss import plugins, recipes, register
from rmploss.data import DATASETS, Key
from rmploss.data.events import Events, to_frames
from rmploss.data.tonic_set import TonicSet, tonic_set
from rmploss.engine.own_data import changes_for, settle
from rmploss.engine.train import train
from rmploss.errors import DataError, UserError
from tests.engine.runs import TINY

T = 2
FIELDS = np.dtype([("t", "i8"), ("x", "i2"), ("y", "i2"), ("p", "?")])


def rows(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    made = np.zeros(40, FIELDS)
    made["t"] = np.sort(draw.integers(0, 1000, 40))
    for field, most in (("x", 16), ("y", 12), ("p", 2)):
        made[field] = draw.integers(0, most, 40)
    return made


class Sequence:
    """What tonic's data sets are to a reader: samples, targets, sensor_size."""

    sensor_size = (16, 12, 2)
    classes = ("low", "high")

    def __init__(self, save_to: str, train: bool = True) -> None:
        self.folder = Path(save_to, type(self).__name__)
        self.seeds = range(12) if train else range(12, 18)
        self.targets = [seed % 2 for seed in self.seeds]
        if not self.folder.is_dir():
            self.download()

    def download(self) -> None:
        raise AssertionError("nothing is downloaded")

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        return rows(self.seeds[index]), self.targets[index]


class Whole(Sequence):
    """A set without a split of its own, whose labels are names."""

    sensor_size = (16, 12, 2)

    def __init__(self, save_to: str) -> None:
        super().__init__(save_to)
        names = ["odd" if target else "even" for target in self.targets]
        self.targets: list[Any] = names


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A package `tonic` with two data sets, whose files are in a folder."""
    package, sets = ModuleType("tonic"), ModuleType("tonic.datasets")
    vars(sets).update(Moves=type("Moves", (Sequence,), {}), Whole=Whole)
    vars(package)["datasets"] = sets
    monkeypatch.setitem(sys.modules, "tonic", package)
    monkeypatch.setitem(sys.modules, "tonic.datasets", sets)
    for name in ("Moves", "Whole"):
        (tmp_path / "root" / name).mkdir(parents=True)
    return tmp_path / "root"


def frames(seed: int, **options: Any) -> torch.Tensor:
    made = rows(seed)
    events = Events(*(made[field].astype(np.int64) for field in "txyp"))
    return torch.from_numpy(to_frames(events, T, sensor=(12, 16), size=8, **options)).float()


def test_a_set_by_its_name(installed: Path) -> None:
    kind = TonicSet(set="Moves", size=8, augment=False)
    assert kind.missing(installed) == []
    assert kind.settled(installed) == {"classes": ("low", "high"), "sensor": (16, 12)}
    splits = kind.open(installed, seed=0, T=T)
    assert splits.train.labels.tolist() == [0, 1] * 6
    assert len(splits.test) == 6
    assert torch.equal(splits.test[Key(0, 3)][0], frames(15))


def test_a_set_without_a_split_is_split_by_share(installed: Path) -> None:
    splits = TonicSet(set="Whole", size=8, test_share=0.5).open(installed, seed=0, T=T)
    assert len(splits.train) + len(splits.test) == 12
    assert len(splits.test) > 0
    assert TonicSet(set="Whole").settled(installed)["classes"] == ("even", "odd")
    again = TonicSet(set="Whole", size=8, test_share=0.5).open(installed, seed=1, T=T)
    assert torch.equal(splits.test.labels, again.test.labels)


def test_labels_that_training_lacks_are_named(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = TonicSet(set="Moves", size=8)
    for odd in ("third", 2, -1):

        def targets(self: Sequence, odd: Any = odd) -> list[Any]:
            return [0, 1] * 6 if len(self.seeds) == 12 else [0, 1, 0, 1, 0, odd]

        monkeypatch.setattr(Sequence, "targets", property(targets, lambda *_: None), raising=False)
        with pytest.raises(DataError, match=f"Moves, sample 5.*label {odd!r}, none of 2"):
            kind.open(installed, seed=0, T=T)


def test_what_is_missing_is_named(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (problem,) = TonicSet(set="Moves").missing(installed / "elsewhere")
    assert "is not in the folder" in problem.what
    assert "tonic.datasets.Moves" in problem.fix
    (problem,) = TonicSet(set="Mvoes").missing(installed)
    assert "Moves" in problem.fix
    monkeypatch.setitem(sys.modules, "tonic.datasets", None)
    (problem,) = TonicSet(set="Moves").missing(installed)
    assert problem.fix == "pip install tonic"


def test_sets_that_are_no_recordings(installed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequence, "sensor_size", None)
    kind = TonicSet(set="Moves", size=8)
    assert "data.sensor=(W,H)" in kind.missing(installed)[0].fix
    kind = TonicSet(set="Moves", size=8, sensor=(16, 12))
    monkeypatch.setattr(Sequence, "__getitem__", lambda self, i: (np.zeros(3), 0))
    with pytest.raises(DataError, match=r"Moves, sample 0.*has no field x"):
        kind.open(installed, seed=0, T=T).train[Key(0, 0)]
    with pytest.raises(UserError, match=r"data-set\.sensor"):
        TonicSet(set="Moves", size=None).shape(T)


def test_a_run_by_the_flag(installed: Path, tmp_path: Path) -> None:
    base = TINY.but(data=recipes.use("digits-events"), train_samples=None, test_samples=None)
    changes = changes_for(base, "tonic:Moves") | {"batch_size": 4, "epochs": 1}
    assert changes["data.size"] == 16
    recipe = settle(recipes.override(base, changes), installed)
    assert recipe.data.options["classes"] == ("low", "high")
    from rmploss.engine.execution import Execution

    path = train(recipe, tmp_path / "runs", Execution(data_dir=installed))
    assert (path / "result.json").is_file()


def test_an_object_of_a_user_is_registered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS, "_added", {})
    monkeypatch.setattr(plugins, "_done", set())
    (tmp_path / "Sequence").mkdir()
    register.dataset("moves", tonic_set("moves", lambda root, train: Sequence(root, train)))
    kind: Any = DATASETS.make("moves", size=8, augment=False)
    assert kind.name == "moves"
    assert torch.equal(kind.open(tmp_path, seed=0, T=T).train[Key(0, 5)][0], frames(5))


@pytest.mark.real_data
def test_the_real_package_reads_n_mnist(real_nmnist: Path) -> None:
    pytest.importorskip("tonic")
    kind = TonicSet(set="NMNIST", size=None, integrate="time", augment=False)
    options = kind.settled(real_nmnist)
    assert options == {"classes": tuple(_names()), "sensor": (34, 34)}
    splits = TonicSet(set="NMNIST", size=None, integrate="time", sensor=(34, 34)).open(
        real_nmnist, seed=0, T=T
    )
    from rmploss.data.nmnist import NMNIST

    ours = NMNIST()
    file = sorted((real_nmnist / "NMNIST" / "Test" / "3").glob("*.bin"))[0]
    index = splits.test.labels.tolist().index(3)
    assert torch.equal(splits.test[Key(0, index)][0], ours.read(file, T))


def _names() -> list[str]:
    import importlib

    return [str(name) for name in importlib.import_module("tonic.datasets").NMNIST.classes]


@pytest.fixture
def real_nmnist(real_data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """N-MNIST in tonic's layout, of the small set; tonic's count of files is not asked for."""
    sets = pytest.importorskip("tonic.datasets")
    for ours, theirs in (("train", "Train"), ("test", "Test")):
        place = tmp_path / "NMNIST" / theirs
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(real_data_root / "nmnist_small" / ours)
    monkeypatch.setattr(sets.NMNIST, "_check_exists", lambda self: True)
    return tmp_path
