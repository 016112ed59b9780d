"""The README is one page, its example runs, and the demo prints the output that it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from rmploss import recipes
from rmploss.cli import main
from tests.engine.runs import TINY

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_it_is_one_page() -> None:
    assert len(README.encode()) <= 12_000


def test_every_document_is_linked() -> None:
    documents = {f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md")}
    assert documents <= {*re.findall(r"\]\(([^)#]+)", README)}


def test_nothing_is_left_to_fill_in() -> None:
    known = {"RMPLOSS_DATA", "OMP_NUM_THREADS", "L_RMP", "L_CE"}
    assert {*re.findall(r"\b[A-Z]+_[A-Z_]+\b", README)} <= known


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lif ")


def test_the_demo_prints_what_is_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = re.findall(r"```\n( +accuracy .*?)```", README, re.DOTALL)
    for name in ("digits", "digits-rmp"):
        objective = recipes.get(name).objective
        monkeypatch.setitem(recipes.RECIPES.given, name, TINY.but(name=name, objective=objective))
    monkeypatch.chdir(tmp_path)
    assert main(["demo"]) == 0
    printed = capsys.readouterr().out.splitlines()[-len(shown.splitlines()) :]
    assert _without_numbers("\n".join(printed)) == _without_numbers(shown)


def _without_numbers(text: str) -> list[str]:
    """The words of a text, with "#" for every number."""
    return re.sub(r"\d+(\.\d+)?", "#", text).replace("(", "( ").split()
