"""The file of rows: written whole, read again, shared, and refused if it is another file."""

from dataclasses import fields, replace
from pathlib import Path

import pytest

from rmploss.engine.rows import Row, Rows, begin_row
from rmploss.errors import UserError
from tests.engine.runs import TINY


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


HEAD = ",".join(field.name for field in fields(Row)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "recipe,seed\nx,1\n",
        "kind,seed\ntry,x\n",
        "a\n1,2\n",
        HEAD + "try,x,0,abc\n",  # fewer values than columns
        HEAD + "try,x,0,abc,,,1\N{REPLACEMENT CHARACTER}.5,,,,,,\n",
    ],
)
def test_another_file_is_refused_by_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot go on") as caught:
        Rows(path)
    assert caught.value.problems[0].where == f"{path}, line 2"
    assert path.read_text() == text
