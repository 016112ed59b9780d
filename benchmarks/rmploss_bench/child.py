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
from rmploss_bench.conditions import Conditions, threads
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


def memory_of(conditions: Conditions, contestant: str) -> float:
    """Peak memory of a training step in bytes, from a new process; see `memory.peak`."""
    from rmploss_bench.memory import ENVIRONMENT

    return float(_ask(conditions, contestant, "memory", ENVIRONMENT))


def first_step_of(conditions: Conditions, contestant: str) -> float:
    """Seconds from the start of a new process to the end of its first training step.

    This includes imports, building the network and compilation; the compiler's cache on disk is
    disabled.
    """
    began = time.perf_counter()
    _ask(conditions, contestant, "first-step", {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"})
    return time.perf_counter() - began


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


def answer(question: str) -> float:
    """Do one task in this process: peak memory in bytes, or one training step (answer 0).

    question: JSON with the keys conditions, contestant and task ("memory" or "first-step").
    """
    asked = json.loads(question)
    conditions, contestant = Conditions(**asked["conditions"]), asked["contestant"]
    with threads(conditions.threads):
        if asked["task"] == "memory":
            from rmploss_bench.memory import peak

            return peak(conditions, contestant)
        from rmploss_bench.contestants import CONTESTANTS

        CONTESTANTS[contestant](make_workload(conditions, calibrated=False), True).step()
        return 0.0
