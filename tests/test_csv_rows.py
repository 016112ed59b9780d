"""Every tool that adds rows to a CSV file keeps those that another process adds meanwhile."""

from collections.abc import Callable
from pathlib import Path

import alive
import csv_rows
import overfit
import pytest
import robustness

from tests.meanwhile import meanwhile


def add_overfit(number: int) -> None:
    recipe, setting = overfit.systems()["vanilla"], overfit.TRIES[number]
    values = dict.fromkeys(overfit.Row.__dataclass_fields__, "1")
    mark = overfit.mark(overfit.overfit(recipe, setting))
    own = {"system": "vanilla", "recipe": recipe.name, "fingerprint": mark}
    own |= {"factor": f"{setting.factor:g}", "cycle": str(setting.epochs)}
    overfit.add(overfit.Row(**{**values, **own}))


def add_alive(number: int) -> None:
    names = ["one", "two"]
    alive.add(dict.fromkeys(alive.FIELDS, names[number]), names)


def add_robustness(number: int) -> None:
    own = {"recipe": "fair-vanilla-pocket", "size": "2/255", "seed": str(number)}
    robustness.add([{**dict.fromkeys(robustness.COLUMNS, "1"), **own}])


@pytest.mark.parametrize(
    ("module", "file", "add"),
    [
        (overfit, "TABLE", add_overfit),
        (alive, "TABLE", add_alive),
        (robustness, "FILE", add_robustness),
    ],
    ids=["overfit", "alive", "robustness"],
)
def test_no_row_is_lost(
    module: object,
    file: str,
    add: Callable[[int], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "rows.csv"
    monkeypatch.setattr(module, file, path)
    with meanwhile(lambda: add(1)):
        add(0)
    assert len(csv_rows.read(path)) == 2


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert csv_rows.read(tmp_path / "rows.csv") == []
