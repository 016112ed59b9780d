"""The contract of every data set in the registry."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from rmploss.data import DATASETS, Key
from rmploss.errors import DataError, UserError

EMBEDDED = {"digits", "digits-events"}


@pytest.fixture(params=DATASETS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


def test_is_a_frozen_dataclass_of_options_under_its_own_name(name: str) -> None:
    kind: Any = DATASETS[name]
    data = kind()
    assert data.name == kind.name == name
    assert list(DATASETS.options(name)) == [field.name for field in dataclasses.fields(kind)]
    with pytest.raises(dataclasses.FrozenInstanceError):
        data.name = "other"
    assert kind() == data
    assert len(kind.classes) in (0, kind.num_classes)


def test_options_are_checked(name: str) -> None:
    (problem,) = DATASETS.problems(name, {"agument": True})
    assert "augment" in problem.fix or "frames" in problem.fix
    assert DATASETS.problems(name, {option: [] for option in DATASETS.options(name)})


def test_shape_has_time_if_temporal(name: str) -> None:
    data = DATASETS[name]()
    shape = data.shape(7)
    assert len(shape) == (4 if data.temporal else 3)
    assert shape[0] == 7 or not data.temporal


def test_missing_data_is_reported_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    data = DATASETS[name]()
    problems = data.missing(tmp_path)
    assert bool(problems) == (name not in EMBEDDED)
    for problem in problems:
        assert str(tmp_path) in problem.where
        assert problem.what
        assert problem.fix
    if problems:
        with pytest.raises(DataError, match=f"{name} is not complete"):
            data.open(tmp_path, seed=0, T=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("embedded", sorted(EMBEDDED))
def test_opened_samples_have_the_shape_promised(embedded: str) -> None:
    data = DATASETS[embedded]()
    splits = data.open(None, seed=0, T=3)
    for split in (splits.train, splits.test):
        x, label = split[Key(0, 0)]
        assert x.shape == data.shape(3)
        assert 0 <= label < data.num_classes


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match="cifar10"):
        DATASETS["cifar-10"]
