"""The first screen, unknown verbs, and the sign of life while torch is imported."""

import io
import os
import pty
import subprocess
import sys
from contextlib import suppress

import pytest

from rmploss.cli import main
from rmploss.cli.first_help import SUMMARIES
from rmploss.cli.sign_of_life import CLEAR, waiting


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_help_is_one_screen(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == (0 if words else 2)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("verb", SUMMARIES)
def test_every_summary_is_of_a_verb_with_a_help(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([verb, "--help"]) == 0
    assert f"rmploss {verb}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("word", "said"),
    [("tabel", 'did you mean "table"?'), ("rapport", 'did you mean "report"?'), ("x", "one of")],
)
def test_an_unknown_verb(word: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word, "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: no such verb\n")
    assert said in err


def test_an_unknown_recipe_gets_the_nearest_three(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "resnet20"]) == 2
    err = capsys.readouterr().err
    assert "did you mean" in err
    assert err.count("resnet20") == 4
    assert "rmploss list all" in err


def test_waiting_is_said_on_a_terminal_and_removed_after_it() -> None:
    out = Terminal()
    with suppress(RuntimeError), waiting("loading", out):
        assert out.getvalue() == "loading ..."
        raise RuntimeError
    assert out.getvalue() == "loading ..." + CLEAR


def test_a_file_gets_no_sign_of_life_and_neither_does_another_rank(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = io.StringIO()
    with waiting("loading", out):
        pass
    monkeypatch.setenv("RANK", "1")
    terminal = Terminal()
    with waiting("loading", terminal):
        pass
    assert out.getvalue() == terminal.getvalue() == ""


def test_it_is_said_before_torch_is_imported() -> None:
    words = (
        "import sys, rmploss.cli.sign_of_life as w; write = w.write\n"
        "def see(out, text): write(out, text + str('torch' in sys.modules) + '\\n')\n"
        "w.write = see; from rmploss.cli import main; main(['table', '0'])"
    )
    master, slave = pty.openpty()
    done = subprocess.Popen([sys.executable, "-c", words], stderr=slave)
    os.close(slave)
    assert os.read(master, 100).startswith(b"loading PyTorch ...False")
    shown = b""
    while chunk := _read(master):
        shown += chunk
    done.wait()
    os.close(master)
    assert b"\x1b[KTrue" in shown
    assert b"no table 0" in shown


def _read(master: int) -> bytes:
    try:
        return os.read(master, 4096)
    except OSError:  # the other end is closed
        return b""
