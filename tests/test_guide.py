"""docs/add-a-method.md, followed word for word beside the tests."""

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
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("tests", "tools"):  # conftest.py imports of the tools
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    places = re.findall(r"^`([a-z]+\.py)`:$", GUIDE, re.MULTILINE)
    codes = blocks("python")
    assert places == ["rate.py", "adaptive.py"]
    for place, code in zip(places, codes, strict=True):
        assert len(code.splitlines()) <= 50
        (tmp_path / place).write_text(code, encoding="utf-8")

    package = Path(__import__("rmploss").__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"}
    outputs = []
    for command in "".join(blocks("sh")).splitlines():
        tool, *rest = command.split()
        if tool == "export":
            name, _, value = rest[0].partition("=")
            environment[name] = value
            continue
        words = [sys.executable, "-m", tool, *rest]
        done = subprocess.run(
            words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        outputs.append(done.stdout + done.stderr)
    for (listed, trained, tested), entry, option in (
        (outputs[:3], "rate", "target"),
        (outputs[3:], "adaptive", "step"),
    ):
        assert re.search(rf"^{entry} +[A-Z]|^{entry} +weight", listed, re.MULTILINE)
        assert f"{option}: a number" in listed
        assert "epoch 1/" in trained
        assert re.search(r"\d+ passed", tested)
        assert "failed" not in tested
