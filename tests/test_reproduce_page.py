"""docs/reproduce.md: its commands run as they stand, and all three runs have one digest."""

import re
import signal
from pathlib import Path

import pytest

from rmploss import recipes
from rmploss.cli import main
from rmploss.engine import train
from rmploss.errors import InterruptedRunError
from tests.engine.runs import TINY, Interrupting

PAGE = (Path(__file__).parent.parent / "docs" / "reproduce.md").read_text(encoding="utf-8")
COMMANDS = [line.split() for line in re.findall(r"^    rmploss (.*)$", PAGE, re.MULTILINE)]


def test_the_commands_give_one_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = TINY.but(name="digits-rmp")
    monkeypatch.setitem(recipes.RECIPES.given, "digits-rmp", recipe)
    monkeypatch.chdir(tmp_path)
    for words in COMMANDS:
        if words[-1] == "third":  # Ctrl-C in the second epoch
            interrupting = Interrupting("train", 2, 2, signal.SIGINT)
            with pytest.raises(InterruptedRunError):
                train.train(recipe, Path("runs"), listener=interrupting, name="third")
        else:
            assert main(words) == 0
    digests = re.findall(r"^ +digest ([0-9a-f]{64})$", capsys.readouterr().out, re.MULTILINE)
    assert len(digests) == 3
    assert len({*digests}) == 1
