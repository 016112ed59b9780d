"""The table of the comparison at its best: means over seeds, and changes over common seeds."""

from dataclasses import replace
from pathlib import Path

from rmploss.engine.rows import Row, Rows, begin_row
from rmploss.recipes import METHODS, Recipe
from rmploss.recipes.fair_best import FULL, OWN, POCKET, spelled
from rmploss.report.fair_best import NO_MEAN, BestLine, conditions, lines, spread
from tests.result_rows import result_row

SYSTEM = "tet"
SETTINGS = POCKET.settings(SYSTEM)


def row(recipe: Recipe, accuracy: float, error: float = 0.2) -> Row:
    return result_row("report", recipe, accuracy, error)


def line_of(folder: Path) -> BestLine:
    (found,) = [line for line in lines(POCKET, folder) if line.method == METHODS[SYSTEM].title]
    return found


def test_without_rows_nothing_was_run(tmp_path: Path) -> None:
    found = lines(POCKET, tmp_path)
    assert len(found) == len(OWN)
    assert all((line.tries, line.seeds, line.last) == (0, 0, "") for line in found)


def test_nothing_is_shown_of_a_system_whose_tries_are_not_complete(tmp_path: Path) -> None:
    rows = Rows(tmp_path / POCKET.file)
    rows.add(row(POCKET.try_of(SYSTEM, {}), 90))
    for seed in POCKET.seeds:
        rows.add(row(POCKET.recipe(SYSTEM, {}).but(seed=seed), 90))
    assert line_of(tmp_path) == BestLine(METHODS[SYSTEM].title, 1, 0)


def test_the_line_of_a_system(tmp_path: Path) -> None:
    rows = Rows(tmp_path / POCKET.file)
    for number, setting in enumerate(SETTINGS):
        rows.add(row(POCKET.try_of(SYSTEM, setting), 30 if number == 2 else 20))
    chosen = SETTINGS[2]
    for seed, (fair, best, both) in enumerate([(10, 20, 21), (12, 24, 22), (14, 28, None)]):
        rows.add(row(POCKET.recipe(SYSTEM, {}).but(seed=seed), fair))
        rows.add(row(POCKET.recipe(SYSTEM, chosen).but(seed=seed), best))
        if both:
            recipe = POCKET.recipe(SYSTEM, chosen, rmp=True)
            rows.add(row(recipe.but(seed=seed), both, 0.15))
    line = line_of(tmp_path)
    assert (line.tries, line.seeds, line.setting) == (6, 3, spelled(chosen))
    assert (line.fair, line.last, line.best) == ("12.0 ± 2.0", "24.0 ± 4.0", "25.0 ± 4.0")
    assert line.change == "+12.0"
    assert line.with_rmp == "21.5 ± 0.7"
    assert line.rmp_change == "-0.5"  # over the two seeds that both have
    assert line.rmp_error_change == "-0.050"
    assert line.validation == "30.0"
    assert lines(POCKET, tmp_path)[0] == line


def test_where_a_report_diverged_there_is_no_mean_of_the_others(tmp_path: Path) -> None:
    rows = Rows(tmp_path / POCKET.file)
    for setting in SETTINGS:
        rows.add(row(POCKET.try_of(SYSTEM, setting), 20))
    recipe = POCKET.recipe(SYSTEM, {})
    rows.add(row(recipe, 24))
    rows.add(replace(begin_row("report", recipe.but(seed=1), ""), outcome="diverged"))
    rows.add(row(recipe.but(seed=2), 28))
    line = line_of(tmp_path)
    assert (line.seeds, line.last, line.error, line.change) == (3, *["1 of 3 diverged"] * 2, "")
    other = "im"  # near chance, but with a mean
    for setting in POCKET.settings(other):
        rows.add(row(POCKET.try_of(other, setting), 10))
    rows.add(row(POCKET.recipe(other, {}), 10))
    found = lines(POCKET, tmp_path)
    assert [each.method for each in found if each.accuracy >= 0] == [METHODS[other].title]
    assert found[0].method == METHODS[other].title
    assert line.accuracy == NO_MEAN


def test_an_error_without_a_unit_is_only_large(tmp_path: Path) -> None:
    assert spread([0.3, 1e11], 3) == "> 1e+04"
    assert spread([9999.0], 1) == "9999.0"
    rows = Rows(tmp_path / POCKET.file)
    for setting in SETTINGS:
        rows.add(row(POCKET.try_of(SYSTEM, setting), 20))
    rows.add(row(POCKET.recipe(SYSTEM, {}), 24, 1e11))
    rows.add(row(POCKET.recipe(SYSTEM, {}, rmp=True), 25))
    line = line_of(tmp_path)
    assert (line.error, line.rmp_change, line.rmp_error_change) == ("> 1e+04", "+1.0", "")


def test_the_conditions_state_budget_split_and_command() -> None:
    said = " ".join(conditions(POCKET))
    assert "6 tries a system" in said
    assert "holds out 50 % of 2000 training images" in said
    assert "holds out 10 % of the training images" in " ".join(conditions(FULL))
    assert "rmploss search fair-best --pocket" in said
    assert "T = 2" in said
    assert "each of one seed" in said
    assert f"{len(OWN)} of {len(METHODS)} methods take part" in said
