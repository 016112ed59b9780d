"""docs/add-a-method.md, followed word for word in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guide_holds(tmp_path: Path) -> None:
    ours = Path(__import__("rmploss").__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ours, tmp_path / "src" / "rmploss", ignore=ignored)
    shutil.copytree(ROOT / "tests", tmp_path / "tests", ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    code, line = blocks("python")
    (place,) = re.findall(r"^`(src/.*)`:$", GUIDE, re.MULTILINE)
    (tmp_path / place).write_text(code, encoding="utf-8")
    assert len(code.splitlines()) <= 50
    table = tmp_path / "src/rmploss/objectives/__init__.py"
    text = table.read_text(encoding="utf-8")
    assert not (ours / "objectives" / place.split("/")[-1]).exists()
    before = '        "none": '
    table.write_text(text.replace(before, line + before), encoding="utf-8")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    outputs = []
    for command in "".join(blocks("sh")).splitlines():
        tool, *rest = command.split()
        words = [sys.executable, "-m", tool, *rest]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout + done.stderr)
    listed, trained, tested = outputs
    assert re.search(r"^rate +A|^rate +weight", listed, re.MULTILINE)
    assert "target: a number" in listed
    assert "epoch 1/1" in trained
    assert re.search(r"\d+ passed", tested)
    assert "failed" not in tested
