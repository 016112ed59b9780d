"""Rows of attacks: which run has its rows, and which of them a table may average."""

import math
from pathlib import Path

import pytest
import robustness

from rmploss.engine.build import resolve
from rmploss.engine.run import RunFolder
from rmploss.errors import UserError
from rmploss.recipes import METHODS, Recipe, get, override

ROW = dict.fromkeys(robustness.MEASURED, "50") | {"size": "2/255", "samples": "100"}


def run(parent: Path, recipe: Recipe) -> Path:
    """The folder of a run."""
    return RunFolder.create(parent, recipe.name, resolve(recipe).to_json(), command=()).path


def attacked(run: Path, source: Path, samples: int = 100, sizes: tuple[str, ...] = ()) -> None:
    """Write the rows of a run."""
    known = robustness.known_of(run, source, samples)
    robustness.add([{**ROW, **known, "size": size} for size in sizes or robustness.SIZES])


@pytest.fixture
def vanilla(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Recipe:
    """The recipe of a run, and a file without rows."""
    monkeypatch.setattr(robustness, "FILE", tmp_path / "rows.csv")
    return get("fair-vanilla-pocket")


def test_a_run_has_its_rows_only_if_all_that_matters_is_the_same(
    vanilla: Recipe, tmp_path: Path
) -> None:
    source, other = (run(tmp_path, vanilla.but(seed=seed)) for seed in (1, 2))
    it = run(tmp_path, vanilla)
    assert not robustness.is_there(it, source, 100)
    attacked(it, source, sizes=robustness.SIZES[:1])
    assert not robustness.is_there(it, source, 100)
    attacked(it, source, sizes=robustness.SIZES[1:])
    assert robustness.is_there(it, source, 100)
    assert not robustness.is_there(it, source, 200)
    assert not robustness.is_there(it, other, 100)
    changes = ({"seed": 3}, {"T": 2}, {"epochs": 3}, {"train_samples": 1000}, {"lr": 0.2})
    for change in changes:
        assert not robustness.is_there(run(tmp_path, vanilla.but(**change)), source, 100)


def test_rows_under_other_conditions_are_not_averaged(vanilla: Recipe, tmp_path: Path) -> None:
    source = run(tmp_path, vanilla.but(seed=9))
    for recipe in (vanilla, vanilla.but(seed=1)):
        attacked(run(tmp_path, recipe), source)
    (line,) = [x for x in robustness.table().splitlines() if x.startswith("| vanilla SNN | 2/255")]
    assert line.endswith("| 2 |")
    assert "epochs of" not in robustness.table()
    attacked(run(tmp_path, vanilla.but(T=2)), source)
    attacked(run(tmp_path, vanilla), source, samples=50)
    shown = robustness.table()
    lines = [x for x in shown.splitlines() if x.startswith("| vanilla SNN | 2/255")]
    assert [x[-5:] for x in lines] == ["| 2 |", "| 1 |", "| 1 |"]
    assert shown.count("test images, 10 steps of PGD") == 3
    assert "T = 2" in shown
    assert ", 50 test images" in shown


def test_a_row_says_what_was_set_and_has_a_line_of_its_own(vanilla: Recipe, tmp_path: Path) -> None:
    source = run(tmp_path, vanilla.but(seed=9))
    weighted = override(get("fair-mpd_sgr-pocket"), {"objective.weight": 10.0, "epochs": 2})
    for recipe in (get("fair-mpd_sgr-pocket").but(epochs=2), weighted, weighted.but(seed=1)):
        attacked(run(tmp_path, recipe), source)
    assert robustness.setting_of(resolve(weighted)) == "objective.weight=10.0"
    lines = [x for x in robustness.table().splitlines() if "2/255" in x]
    title = METHODS["mpd_sgr"].title
    assert lines[0].startswith(f"| {title} | 2/255")
    assert lines[1].startswith(f"| {title}, `objective.weight=10.0` | 2/255")
    assert [line[-5:] for line in lines] == ["| 1 |", "| 2 |"]


def test_a_difference_has_the_error_of_all_methods_and_counts_how_many_are_compared(
    vanilla: Recipe, tmp_path: Path
) -> None:
    """s^2 = (2 + 2) / 2; the error is sqrt(2); with nu = 2, p = 1 - t / sqrt(2 + t^2)."""
    source = run(tmp_path, vanilla.but(seed=9))
    accuracies = ((vanilla, (10, 12)), (get("fair-rmp-pocket"), (15, 17)))
    for recipe, each in accuracies:
        for seed, accuracy in enumerate(each):
            known = robustness.known_of(run(tmp_path, recipe.but(seed=seed)), source, 100)
            robustness.add([{**ROW, **known, "pgd": str(accuracy)}])
    t = 5 / math.sqrt(2)
    p = 1 - t / math.sqrt(2 + t**2)
    (line,) = [x for x in robustness.differences().splitlines() if "2/255" in x]
    title = METHODS["rmp"].title
    assert line == f"| {title} | 2/255 | +5.0 | {math.sqrt(2):.1f} | {p:.2f} | {p:.2f} |"
    other = robustness.known_of(run(tmp_path, get("fair-im-pocket")), source, 100)
    robustness.add([{**ROW, **other, "pgd": "16"}])
    lines = [x for x in robustness.differences().splitlines() if "2/255" in x]
    assert next(x.split(" | ")[-1] for x in lines) == f"{2 * p:.2f} |"


def test_a_row_of_the_same_attack_is_replaced_and_a_damaged_one_is_told(
    vanilla: Recipe, tmp_path: Path
) -> None:
    source, it = run(tmp_path, vanilla.but(seed=9)), run(tmp_path, vanilla)
    for _ in range(2):  # As of two processes that began when there was no row.
        attacked(it, source)
    (line,) = [x for x in robustness.table().splitlines() if x.startswith("| vanilla SNN | 2/255")]
    assert line.endswith("| 1 |")
    text = robustness.FILE.read_text()
    for wrong in ("1300", "nan", ""):
        robustness.FILE.write_text(text.replace(",100,50,", f",100,{wrong},"))
        with pytest.raises(UserError, match="damaged"):
            robustness.table()
