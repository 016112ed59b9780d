"""Tests in Triton's interpreter, in a process of their own.

Triton reads TRITON_INTERPRET when it is imported.
"""

import os
import subprocess
import sys
from pathlib import Path


def assert_passed(*targets: str) -> None:
    """Run tests by pytest's words for them: all pass, none is skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    child = subprocess.run(
        [*command, *targets],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert child.returncode == 0, child.stdout[-8000:] + child.stderr[-2000:]
    summary = child.stdout.strip().splitlines()[-1]
    assert "passed" in summary
    assert "skipped" not in summary
