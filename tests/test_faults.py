"""A whole run under random faults is the unbroken one: tools/faults.py, in small."""

import json
import random
import subprocess
import sys
from pathlib import Path

from fault_plan import ALLOWED, Setting, draw_faults

ROOT = Path(__file__).parent.parent


def test_runs_under_faults_end_as_the_unbroken_one(tmp_path: Path) -> None:
    out = tmp_path / "faults.json"
    words = [sys.executable, str(ROOT / "tools/faults.py"), "--trials", "3", "--seed", "3"]
    done = subprocess.run(
        [*words, "--out", str(out)], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    counted = json.loads(out.read_text())
    assert (counted["trials"], counted["finished"], counted["wrong"]) == (3, 3, [])
    assert sum(counted["faults"].values()) >= 3
    assert counted["executions"] > 3


def test_every_kind_of_fault_is_drawn() -> None:
    setting, rng = Setting(ranks=2, workers=1, every_step=False), random.Random(0)
    drawn = [draw_faults(rng, setting, 100, 1.0) for _ in range(200)]
    assert {fault.kind for faults in drawn for fault in faults} == ALLOWED.keys()
    assert {len(faults) for faults in drawn} == {1, 2, 3, 4}
