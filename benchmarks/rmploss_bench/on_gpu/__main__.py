"""`python -m rmploss_bench.on_gpu SECONDS OUT`: see `benchmarks/on_gpu.sh`."""

import importlib.util
import os
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional, arg

from rmploss import store
from rmploss.errors import Problem, UserError
from rmploss_bench.on_gpu.clock import Clock
from rmploss_bench.on_gpu.plan import GPU, Plan, small
from rmploss_bench.on_gpu.record import Record
from rmploss_bench.on_gpu.tables import TESTS_S, table, tests
from rmploss_bench.on_gpu.training import SAVE_S, Training

BEGAN = "ON_GPU_BEGAN"
"""The environment variable in which the script leaves its beginning, in seconds since 1970."""
MARGIN_S = 10.0
"""Seconds before the end in which nothing runs any more."""


@dataclass(frozen=True)
class OnGpu:
    """Run the GPU tests, the tables of the bench and full-size rows within a given time.

    A second call with the same folder goes on where the first one ended.

    $ benchmarks/on_gpu.sh 3600 out
    $ benchmarks/on_gpu.sh 600 out --parts tests tables
    $ benchmarks/on_gpu.sh 120 out --small
    """

    seconds: Annotated[Positional[float], arg(metavar="SECONDS")]
    """The time until the script ends."""
    out: Annotated[Positional[Path], arg(metavar="OUT")]
    """The folder of results."""
    parts: tuple[Literal["tests", "tables", "rows"], ...] = ("tests", "tables", "rows")
    """What to do."""
    small: bool = False
    """Everything in small, on the CPU."""

    def run(self) -> int:
        """Do what fits; returns 0, or 1 if a part failed."""
        if "tests" in self.parts:
            require_pytest()
        spent = time.time() - float(os.environ.get(BEGAN, time.time()))
        clock = Clock(time.monotonic() + self.seconds - MARGIN_S - spent)
        store.make_folder(self.out)
        with store.lock(self.out):
            record = Record.open(self.out)
            self._work(small() if self.small else GPU, record, clock)
        failed = [name for name, part in record.parts.items() if part.status == "failed"]
        for name in failed:
            self._say(f"failed: {name}, {record.parts[name].note}")
        return int(bool(failed))

    def _work(self, plan: Plan, record: Record, clock: Clock) -> None:
        if "tests" in self.parts and not record.finished("tests"):
            if clock.left() < (1.0 if self.small else TESTS_S):
                return self._say("no time is left for the tests")
            tests(plan, self.out, record, clock, self._say)
        for wanted in plan.tables if "tables" in self.parts else ():
            if not record.finished(wanted.name) and clock.left() >= wanted.seconds:
                table(wanted, self.out, record, clock, self._say)
        training = Training(plan, self.out, record, clock, self._say)
        for row in plan.rows if "rows" in self.parts else ():
            if not record.finished(row.name):
                training.row(row)
                if not record.finished(row.name):
                    break  # the order is that of the plan
        done = sum(part.status == "done" for part in record.parts.values())
        total = 1 + len(plan.tables) + len(plan.rows)
        kept = "" if self._over(plan, record) else f"; a row keeps {SAVE_S:.0f} s to be saved"
        return self._say(f"{done} of {total} parts are done, {clock.left():.0f} s are left{kept}")

    def _over(self, plan: Plan, record: Record) -> bool:
        """True if no row is left to train."""
        return "rows" not in self.parts or all(record.finished(row.name) for row in plan.rows)

    def _say(self, line: str) -> None:
        print(line, flush=True)
        store.append_line(self.out / "log.txt", f"{time.strftime('%H:%M:%S')} {line}")


def require_pytest() -> None:
    """Raise `UserError` unless the GPU tests can run, before time is spent on anything."""
    if importlib.util.find_spec("pytest") is None:
        fix = "pip install '.[test]', or WHEELS=FOLDER with its wheels, or --parts tables rows"
        raise UserError("the GPU tests cannot run", [Problem("pytest", "is not installed", fix)])


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order on a signal: the running process gets it, too."""
    raise SystemExit(128 + number)


def main() -> int:
    """Run the command line and return the exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    asked = tyro.cli(OnGpu, prog="on_gpu.sh", config=(tyro.conf.FlagCreatePairsOff,))
    try:
        return asked.run()
    except UserError as error:
        print(error, file=sys.stderr)
        return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
