"""What docs/deploy.md shows can be typed as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rmploss import recipes
from rmploss.cli import main
from rmploss.engine import train
from tests.engine.runs import TINY

DOCUMENT = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/NAME and the files that the document names."""
    folder = tmp_path_factory.mktemp("deploy")
    path = train.train(TINY.but(epochs=1), folder / "runs")
    path.rename(folder / "runs" / "NAME")
    for name in ("image.png", "cat.png", "dog.jpg"):
        Image.new("L", (8, 8), 120).save(folder / name)
    return folder


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(example: str, folder: Path) -> None:
    words = [sys.executable, "-c", example]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


COMMANDS = [
    line.partition("#")[0].strip()
    for line in re.findall(
        r"^    rmploss ((?:predict|export|demo|pack|eval) .*)$", DOCUMENT, re.MULTILINE
    )
]
"""The commands that the document shows, without comments; `train` made what they name."""
SLOW = ("torch-export", ".bin")  # tests/export/test_of_run.py; no recording of digits


def test_the_commands_run_as_shown_one_after_the_other(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    for name in ("digits", "digits-rmp"):  # what the demo trains
        monkeypatch.setitem(recipes.RECIPES.given, name, TINY.but(name=name, epochs=1))
    shown = [command for command in COMMANDS if not any(word in command for word in SLOW)]
    assert len(shown) >= 6
    for command in shown:
        assert main(command.split()) == 0, command
        assert capsys.readouterr().out
