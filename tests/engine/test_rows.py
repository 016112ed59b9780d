"""The file of rows: written whole, read again, shared, and refused if it is another file."""

from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from rmploss.engine.rows import RESULTS, Row, Rows, begin_row
from rmploss.errors import StoreError, UserError
from tests.engine.runs import TINY
from tests.meanwhile import meanwhile
from tests.result_rows import result_row


def test_a_row_is_found_by_recipe_and_seed_in_a_new_process(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rows.csv"
    row = replace(result_row("try", TINY, 12.5), setting="lr=0.1")
    Rows(path).add(row)
    found = Rows(path)
    assert found.of(TINY) == row
    assert found.of(TINY.but(seed=1)) is None
    assert found.of(TINY.but(lr=0.5)) is None
    assert row.accuracy == 12.5
    assert begin_row("try", TINY, "").accuracy == 0


def test_rows_of_different_samples_are_told(tmp_path: Path) -> None:
    rows = Rows(tmp_path / "rows.csv")
    for seed, (kind, mark) in enumerate(
        [("try", "aa"), ("report", "bb"), ("report", "bb"), ("report", "")]
    ):
        rows.add(replace(result_row(kind, TINY.but(seed=seed)), tested_on=mark))
    rows.require_same_samples()
    rows.add(replace(result_row("report", TINY.but(seed=9)), tested_on="cc"))
    with pytest.raises(UserError, match="different test samples") as caught:
        rows.require_same_samples()
    assert "report" in caught.value.problems[0].where
    assert caught.value.problems[0].what == "tested on bb (2 rows), on cc (1 rows)"


def test_a_row_goes_where_a_symbolic_link_leads(tmp_path: Path) -> None:
    path, link = tmp_path / "rows.csv", tmp_path / "link.csv"
    Rows(path).add(result_row("try", TINY))
    link.symlink_to(path)
    Rows(link).add(result_row("try", TINY.but(seed=1)))
    assert link.is_symlink()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(UserError, match="cannot read these rows"):
        Rows(tmp_path / "loop")
    assert Rows(path).of(TINY.but(seed=1)) is not None


@pytest.mark.parametrize("name", ["rows.csv", "r" * 240])
def test_what_cannot_be_written_is_told_before_a_run(tmp_path: Path, name: str) -> None:
    """A lock that is a folder; a name that has no room for those beside it."""
    rows = Rows(tmp_path / "ok.csv")
    rows.require_writable()
    assert Rows(tmp_path / "ok.csv").of(TINY) is None
    if name == "rows.csv":
        (tmp_path / ".lock-rows.csv").mkdir()
    with pytest.raises(StoreError):
        Rows(tmp_path / name).require_writable()


def test_a_row_is_of_all_options_also_of_those_that_no_recipe_states(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another rule for one makes another network: so a row of PLIF outlived its mended norm."""
    Rows(tmp_path / "rows.csv").add(result_row("try", TINY))
    rows = Rows(tmp_path / "rows.csv")
    stated = TINY.but(neuron=TINY.neuron.but(decay=0.25, v_threshold=0.5))
    assert rows.of(stated) is not None
    monkeypatch.setattr("rmploss.engine.build._threshold_option", lambda _: {"v_threshold": 2.0})
    assert rows.of(TINY) is None


def test_rows_that_others_wrote_meanwhile_stay(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    one, other = Rows(path), Rows(path)
    one.add(result_row("try", TINY))
    other.add(result_row("report", TINY.but(seed=1)))
    found = Rows(path)
    assert found.of(TINY) is not None
    assert found.of(TINY.but(seed=1)) is not None
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_row_that_another_adds_during_the_write_stays(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    other = result_row("report", TINY.but(seed=1))
    with meanwhile(lambda: Rows(path).add(other)):
        Rows(path).add(result_row("try", TINY))
    found = Rows(path)
    assert found.of(TINY) is not None
    assert found.of(TINY.but(seed=1)) is not None


def test_what_was_corrected_or_removed_meanwhile_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    wrong, removed = result_row("try", TINY, 90), result_row("try", TINY.but(seed=2))
    for row in (wrong, removed):
        Rows(path).add(row)
    begun = Rows(path)
    path.write_text(text_of(GOOD))
    begun.add(result_row("report", TINY.but(seed=1)))
    for rows in (begun, Rows(path)):
        assert rows.of(TINY) == GOOD
        assert rows.of(TINY.but(seed=1)) is not None
        assert rows.of(TINY.but(seed=2)) is None


HEAD = ",".join(field.name for field in fields(Row)) + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "my notes, one line\n",
        "recipe,seed\nx,1\n",
        HEAD.replace(",outcome", "") + "try,x,0,abc,,,,,,,,\n",
        HEAD + "try,x,0,abc\n",  # fewer values than columns
        HEAD + "try,x,0," + 140_000 * "a" + ",,,1,,,,,,\n",
    ],
    ids=range(5),
)
def test_another_file_is_refused_by_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text)
    with pytest.raises(UserError, match="cannot go on") as caught:
        Rows(path)
    line = 2 if text.startswith(HEAD) else 1
    assert caught.value.problems[0].where == f"{path}, line {line}"
    assert path.read_text() == text


GOOD = result_row("try", TINY)
DIVERGED = replace(begin_row("try", TINY, ""), outcome="diverged")


def line_of(row: Row, **changes: str) -> str:
    return ",".join(str(value) for value in {**asdict(row), **changes}.values()) + "\n"


def text_of(*rows: Row) -> str:
    """A file of rows, one a line."""
    return HEAD + "".join(map(line_of, rows))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("kind", "foo"),
        ("recipe", ""),
        ("seed", "-1"),
        ("seed", "1.0"),
        ("fingerprint", "4.9E+07"),
        ("tested_on", "?"),
        ("last_accuracy", ""),
        ("last_accuracy", "2580"),
        ("last_accuracy", "-5"),
        ("last_accuracy", "nan"),
        ("last_accuracy", "1_5"),
        ("last_accuracy", "\uff11\uff15"),
        ("firing_rate", "-0"),
        ("last_accuracy", "1\N{REPLACEMENT CHARACTER}.5"),
        ("best_accuracy", ""),
        ("best_accuracy", "49.0"),
        ("best_epoch", "0"),
        ("best_epoch", "1.5"),
        ("quantization_error", "abc"),
        ("quantization_error", "inf"),
        ("firing_rate", "-0.1"),
        ("train_cpu_s", "nan"),
        ("outcome", "zzz"),
    ],
)
def test_a_wrong_value_is_told_with_its_line_and_field(
    tmp_path: Path, field: str, value: str
) -> None:
    path = tmp_path / "rows.csv"
    first = replace(GOOD, seed=5)
    path.write_text(text_of(first) + "\n" + line_of(GOOD))
    assert Rows(path).of(TINY) == GOOD
    path.write_text(text_of(first) + "\n" + line_of(GOOD, **{field: value}))
    with pytest.raises(UserError, match="cannot go on") as caught:
        Rows(path)
    (problem,) = caught.value.problems
    assert problem.where == f"{path}, line 4"
    assert f": {field} " in problem.what
    assert problem.fix == "correct or remove this line"


@pytest.mark.parametrize("field", list(RESULTS))
def test_a_run_that_diverged_has_no_results(tmp_path: Path, field: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text_of(DIVERGED))
    assert Rows(path).of(TINY) == DIVERGED
    path.write_text(text_of(replace(DIVERGED, **{field: "99"})))
    with pytest.raises(UserError, match=f"{field} is '99', but a run that diverged"):
        Rows(path)


def test_two_rows_of_one_run_are_equal(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(text_of(GOOD, GOOD))
    assert Rows(path).of(TINY) == GOOD
    for other in (DIVERGED, replace(GOOD, last_accuracy="50.5"), replace(GOOD, kind="report")):
        path.write_text(text_of(GOOD, replace(GOOD, seed=1), other))
        with pytest.raises(UserError, match="line 4: is of the run of line 2, but differs"):
            Rows(path)


def test_rows_that_a_spreadsheet_saved_are_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    Rows(path).add(result_row("try", TINY))
    path.write_text("\N{BYTE ORDER MARK}" + path.read_text(), encoding="utf-8")
    assert Rows(path).of(TINY) is not None
