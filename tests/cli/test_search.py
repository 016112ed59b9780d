"""`rmploss search`: what it says after a signal, and when all runs have a row."""

import sys
from pathlib import Path
from typing import NoReturn

import pytest

from rmploss.cli import main
from rmploss.engine import fair_best
from rmploss.errors import InterruptedRunError


def test_after_a_signal_the_search_goes_on_and_not_one_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object) -> NoReturn:
        raise InterruptedRunError("stopped after step 4", "rmploss train --resume x")

    monkeypatch.setattr(fair_best, "run", interrupted)
    words = ["search", "fair-best", "--pocket", "--file", str(tmp_path / "my rows.csv")]
    monkeypatch.setattr(sys, "argv", ["rmploss", *words])
    assert main(words) == InterruptedRunError.exit_code
    again = f"rmploss search fair-best --pocket --file '{tmp_path}/my rows.csv'"
    assert capsys.readouterr().err.endswith(f"stopped after step 4; resume with\n  {again}\n")


@pytest.mark.parametrize(
    ("only", "which"), [([], "all runs"), (["tet", "im"], "all runs of tet, im")]
)
def test_the_end_says_of_which_systems_all_runs_have_a_row(
    only: list[str],
    which: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(fair_best, "run", lambda *_: None)
    words = ["search", "fair-best", "--file", str(tmp_path / "rows.csv")]
    assert main(words + ["--only", *only] * bool(only)) == 0
    out, err = capsys.readouterr()
    assert f"{which} have a row: rmploss table fair-best" in out + err
