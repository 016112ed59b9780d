"""The README is true: generated parts are fresh, paths exist, the example runs."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_the_generated_parts_are_those_of_the_code() -> None:
    words = [sys.executable, str(ROOT / "tools" / "readme.py"), "--check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_every_file_it_names_exists() -> None:
    linked = re.findall(r"\]\((?!http)([^)#]+)\)", README)
    quoted = re.findall(r"`(tests/[^`]*|tools/[^`]*)`", README)
    assert len(linked) >= 5
    assert len(quoted) >= 5
    missing = [path for path in (*linked, *quoted) if not (ROOT / path).exists()]
    assert missing == []


def test_nothing_is_left_to_fill_in() -> None:
    known = {"RMPLOSS_DATA", "OMP_NUM_THREADS"}
    assert {*re.findall(r"\b[A-Z]+_[A-Z_]+\b", README)} <= known


def test_the_example_runs() -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("lif ")
