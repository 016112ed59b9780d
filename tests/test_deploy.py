"""What docs/deploy.md shows can be typed as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from rmploss.cli import main
from rmploss.engine import train
from tests.engine.runs import TINY

DOCUMENT = (Path(__file__).parent.parent / "docs" / "deploy.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs/NAME and the files that the document names."""
    folder = tmp_path_factory.mktemp("deploy")
    train.train(TINY.but(epochs=1), folder / "runs").rename(folder / "runs" / "NAME")
    for name in ("image.png", "cat.png", "dog.jpg"):
        Image.new("L", (8, 8), 120).save(folder / name)
    return folder


@pytest.mark.parametrize("example", EXAMPLES)
def test_the_examples_run(example: str, folder: Path) -> None:
    words = [sys.executable, "-c", example]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode == 0, done.stderr


def commands(verb: str) -> list[str]:
    """The commands of a verb that the document shows, without comments."""
    lines = re.findall(rf"^    rmploss ({verb} .*)$", DOCUMENT, re.MULTILINE)
    return [line.partition("#")[0].strip() for line in lines]


@pytest.mark.parametrize("command", [c for c in commands("predict") if ".png" in c])
def test_predict_runs_as_shown(
    command: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    assert main(command.split()) == 0
    assert "%" in capsys.readouterr().out
