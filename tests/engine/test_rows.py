"""The file of rows: written whole, read again, shared, and refused if it is another file."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from rmploss.engine.rows import Row, Rows, begin_row
from rmploss.errors import UserError
from tests.engine.runs import TINY
from tests.meanwhile import meanwhile


def test_a_row_is_found_by_recipe_and_seed_in_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    row = replace(begin_row("try", TINY, "lr=0.1"), last_accuracy="12.50")
    Rows(path).add(row)
    found = Rows(path)
    assert found.of(TINY) == row
    assert found.of(TINY.but(seed=1)) is None
    assert found.of(TINY.but(lr=0.5)) is None
    assert row.accuracy == 12.5
    assert begin_row("try", TINY, "").accuracy == 0


def test_rows_that_others_wrote_meanwhile_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    one, other = Rows(path), Rows(path)
    one.add(begin_row("try", TINY, "lr=0.1"))
    other.add(begin_row("report", TINY.but(seed=1), ""))
    found = Rows(path)
    assert found.of(TINY) is not None
    assert found.of(TINY.but(seed=1)) is not None
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_row_that_another_adds_during_the_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    other = begin_row("report", TINY.but(seed=1), "")
    with meanwhile(lambda: Rows(path).add(other)):
        Rows(path).add(begin_row("try", TINY, "lr=0.1"))
    found = Rows(path)
    assert found.of(TINY) is not None
    assert found.of(TINY.but(seed=1)) is not None


HEAD = ",".join(field.name for field in fields(Row)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "my notes, one line\n",
        "recipe,seed\nx,1\n",
        HEAD.replace(",outcome", "") + "try,x,0,abc,,,,,,,,\n",
        HEAD + "try,x,0,abc\n",  # fewer values than columns
        HEAD + "try,x,0,abc,,,1\N{REPLACEMENT CHARACTER}.5,,,,,,\n",
        HEAD + "try,x,0,abc,,,nan,,,,,,\n",
        HEAD + "try,x,0," + 140_000 * "a" + ",,,1,,,,,,\n",
    ],
    ids=range(7),
)
def test_another_file_is_refused_by_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot go on") as caught:
        Rows(path)
    line = 2 if text.startswith(HEAD) else 1
    assert caught.value.problems[0].where == f"{path}, line {line}"
    assert path.read_text() == text


def test_rows_that_a_spreadsheet_saved_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    Rows(path).add(begin_row("try", TINY, "lr=0.1"))
    path.write_text("\N{BYTE ORDER MARK}" + path.read_text(), encoding="utf-8")
    assert Rows(path).of(TINY) is not None
