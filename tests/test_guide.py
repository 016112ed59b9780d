"""docs/add-a-method.md, followed word for word in a copy of the package."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "add-a-method.md").read_text(encoding="utf-8")


RUN = """
import runpy, sys
# An editable installation finds the package of this checkout before that of PYTHONPATH.
sys.meta_path[:] = [f for f in sys.meta_path if "ScikitBuild" not in type(f).__name__]
sys.argv = sys.argv[1:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
"""As `python -m TOOL ARGUMENTS`, in the copy."""


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", GUIDE, re.DOTALL)


def test_the_guide_holds(tmp_path: Path) -> None:
    ours = Path(__import__("rmploss").__file__).parent
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ours, tmp_path / "src" / "rmploss", ignore=ignored)
    for folder in ("tests", "tools"):  # conftest.py imports of the tools
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    shutil.copy(ROOT / "pyproject.toml", tmp_path)

    places = re.findall(r"^`(src/.*)`:$", GUIDE, re.MULTILINE)
    registries = re.findall(r"^In `(src/.*)`, in the registry", GUIDE, re.MULTILINE)
    codes, lines = blocks("python")[::2], blocks("python")[1::2]
    assert len(places) == len(registries) == len(codes) == len(lines) == 2
    first = {"objectives": '        "none": ', "neurons": '        "lif": '}
    for place, code, registry, line in zip(places, codes, registries, lines, strict=True):
        assert not (ROOT / place).exists()
        assert len(code.splitlines()) <= 50
        (tmp_path / place).write_text(code, encoding="utf-8")
        text = (tmp_path / registry).read_text(encoding="utf-8")
        before = first[Path(registry).parent.name]
        assert text.count(before) == 1
        (tmp_path / registry).write_text(text.replace(before, line + before), encoding="utf-8")

    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src"), "OMP_NUM_THREADS": "1"}
    outputs = []
    for command in "".join(blocks("sh")).splitlines():
        tool, *rest = command.split()
        words = [sys.executable, "-c", RUN, tool, *rest]
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
