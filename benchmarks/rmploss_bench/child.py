"""One measurement in a process of its own: the question is JSON, and so is the answer.

The answer is the last line of the process's output. The process searches for modules where its
parent does, so that the package works in place, without being installed.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

from rmploss.errors import UserError
from rmploss_bench.conditions import Conditions, settings
from rmploss_bench.workload import make_workload

PROGRAM = "; ".join(
    (
        "import json, sys",
        "sys.path[:] = json.loads(sys.argv[1])",
        "from rmploss_bench import child",
        "print(json.dumps(child.answer(sys.argv[2])))",
    )
)
"""What the process runs; its arguments are the module search path and the question."""


def memory_of(conditions: Conditions, contestant: str) -> dict[str, float]:
    """What -> peak memory of a training step in bytes, from a new process; see `memory.peaks`."""
    from rmploss_bench.memory import ENVIRONMENT

    return _ask(conditions, contestant, "memory", ENVIRONMENT)


def first_step_of(conditions: Conditions, contestant: str) -> dict[str, float]:
    """What -> seconds from the start of a new process to the end of its first training step.

    This includes imports, building the network and compilation; the compiler's cache on disk is
    disabled.
    """
    began = time.perf_counter()
    _ask(conditions, contestant, "first-step", {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"})
    return {"first step (s)": time.perf_counter() - began}


def _ask(conditions: Conditions, contestant: str, task: str, environment: dict[str, str]) -> Any:
    asked = {"conditions": conditions.as_dict(), "contestant": contestant, "task": task}
    count = str(conditions.threads)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(sys.path), json.dumps(asked)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": count, "MKL_NUM_THREADS": count, **environment},
    )
    if done.returncode:
        raise UserError(f"the process that measured {contestant} failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(question: str) -> dict[str, int]:
    """Do one task in this process: measure its peak memory, or run one training step.

    question: JSON with the keys conditions, contestant and task ("memory" or "first-step").
    """
    asked = json.loads(question)
    conditions = Conditions(**asked["conditions"])
    with settings(conditions):
        if asked["task"] == "memory":
            from rmploss_bench.memory import peaks

            return peaks(conditions, asked["contestant"])
        from rmploss_bench.contestants import contestant

        contestant(asked["contestant"])(make_workload(conditions, calibrated=False), True).step()
        return {}
