"""One measurement in a process of its own, which is asked in JSON and answers in JSON.

The answer is the last line of its output. The process imports from where its parent does, so that
the package may be used in place, without being installed.
"""

import json
import os
import subprocess
import sys
import time
from typing import Any

from rmploss.errors import UserError
from rmploss_bench.case import Setting, case, threads

START = "; ".join(
    (
        "import json, sys",
        "sys.path[:] = json.loads(sys.argv[1])",
        "from rmploss_bench import child",
        "print(json.dumps(child.answer(sys.argv[2])))",
    )
)
"""The program of the process; its arguments: where to import from, and the question."""


def memory_of(made: Setting, contestant: str) -> float:
    """Bytes: see `memory.peak`."""
    from rmploss_bench.memory import ENVIRONMENT

    return float(_ask(made, contestant, "memory", ENVIRONMENT))


def first_step_of(made: Setting, contestant: str) -> float:
    """Seconds from the start of a process until its first training step is done.

    Imports, building the network and compilation included; compiled code is not taken from a cache
    on disk.
    """
    began = time.perf_counter()
    _ask(made, contestant, "first-step", {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"})
    return time.perf_counter() - began


def _ask(made: Setting, contestant: str, task: str, environment: dict[str, str]) -> Any:
    question = json.dumps({"setting": made.plain(), "contestant": contestant, "task": task})
    set_threads = {"OMP_NUM_THREADS": str(made.threads), "MKL_NUM_THREADS": str(made.threads)}
    done = subprocess.run(
        [sys.executable, "-c", START, json.dumps(sys.path), question],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **set_threads, **environment},
    )
    if done.returncode:
        raise UserError(f"the process that measured {contestant} failed:\n{done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def answer(question: str) -> float:
    """What a child process answers."""
    asked = json.loads(question)
    made, contestant = Setting(**asked["setting"]), asked["contestant"]
    with threads(made.threads):
        if asked["task"] == "memory":
            from rmploss_bench.memory import peak

            return peak(made, contestant)
        from rmploss_bench.contestants import CONTESTANTS

        CONTESTANTS[contestant](case(made, calibrated=False), True).step()
        return 0.0
