"""Lines that fit a terminal; files and pipes get them whole."""

import io
import os
import sys

import pytest

from rmploss.cli import main
from rmploss.cli.wrapping import error_text, problem_text, width_of, wrap
from rmploss.errors import Problem, UserError

PROBLEM = Problem("data/imagenet/train", "no such folder", "unpack ILSVRC2012_img_train.tar there")
ERROR = UserError("1 problem in the recipe imagenet-resnet18-rmp", [PROBLEM])


def test_what_fits_stays_a_line() -> None:
    assert wrap("  a line", 8, 4) == "  a line"
    assert error_text(ERROR, 100) == f"error: {ERROR}"
    assert error_text(ERROR, sys.maxsize) == f"error: {ERROR}"


def test_what_does_not_is_broken_between_words() -> None:
    assert wrap("  on cpu    native  the fastest here", 26, 6).splitlines() == [
        "  on cpu    native  the",
        "      fastest here",
    ]
    assert wrap("a/long/path/of/a-run", 10, 2) == "a/long/path/of/a-run"


def test_what_to_do_stands_on_a_line_of_its_own() -> None:
    assert error_text(ERROR, 60).splitlines() == [
        "error: 1 problem in the recipe imagenet-resnet18-rmp",
        "  data/imagenet/train: no such folder",
        "      unpack ILSVRC2012_img_train.tar there",
    ]
    assert problem_text(Problem("a" * 20, "b"), 12, 2) == "  " + "a" * 20 + ":\n    b"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", ["data", "train digts", "verify nothing", "doctor"])
def test_verbs_fit_sixty_columns(words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("RMPLOSS_DATA", "nowhere")
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    main(words.split())
    long = [line for line in terminal.getvalue().splitlines() if len(line) > 60]
    assert not [line for line in long if len(line.split()) > 1 and "/" not in line], long


def test_the_width_is_that_of_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.get_terminal_size", lambda *_, **__: os.terminal_size((60, 20)))
    assert width_of(Terminal()) == 60
    assert width_of(io.StringIO()) == sys.maxsize
    closed = io.StringIO()
    closed.close()
    assert width_of(closed) == sys.maxsize


def test_the_help_of_verify_names_no_empty_default(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", "--help"]) == 0
    assert "(default: )" not in capsys.readouterr().out


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("words", [["2", "--pocket"], ["1"], ["fair", "--pocket"], ["fair-best"]])
def test_a_table_fits_the_terminal(
    words: list[str],
    width: int,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert main(["table", *words, "--runs-dir", "tests"]) == 0
    shown = capsys.readouterr().out.partition("to fill the empty cells")[0]
    assert max(map(len, shown.splitlines())) <= width
    assert "*: not of your runs, but of" in shown or words in (["1"], ["fair-best"])
    assert "resnet20" in shown.replace("\n", "") or words[0] == "fair"
