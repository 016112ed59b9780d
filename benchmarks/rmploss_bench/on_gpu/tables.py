"""The GPU tests and the tables of the bench, each in a process of its own."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from rmploss import store
from rmploss_bench.on_gpu.clock import Clock, run
from rmploss_bench.on_gpu.plan import Plan, Table
from rmploss_bench.on_gpu.record import Record

ROOT = Path(__file__).parents[3]
"""The clone, which holds the tests."""
TESTS_S = 60.0
"""The least time with which the tests are begun, in seconds."""
Say = Callable[[str], None]


def tests(plan: Plan, out: Path, record: Record, clock: Clock, say: Say) -> None:
    """Run the GPU tests; OUT/tests.txt keeps what they print.

    plan: names them.
    out: the folder of results.
    record: gets the last line of pytest; "failed" if a test fails.
    clock: the time that is left.
    say: prints a line.
    """
    say(f"GPU tests: about {TESTS_S:.0f} s, {clock.left():.0f} s are left")
    words = (sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *plan.tests)
    ended = run(words, seconds=clock.left(), kill_after=5.0, folder=ROOT)
    lines = [line.strip("= ") for line in ended.output.splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    store.write_text(out / "tests.txt", ended.output)
    status = "stopped" if ended.stopped else "done" if ended.code == 0 else "failed"
    record.note("tests", status, ended.seconds, last)
    say(f"GPU tests: {status}, {last}")


def table(wanted: Table, out: Path, record: Record, clock: Clock, say: Say) -> None:
    """Measure a table; OUT/tables/NAME holds its CSV, or log.txt where there is none.

    wanted: the table.
    out, record, clock, say: see `tests`.
    """
    say(f"{wanted.name}: about {wanted.seconds} s, {clock.left():.0f} s are left")
    folder = out / "tables" / wanted.name
    words = (sys.executable, "-m", "rmploss_bench", *wanted.words, "--out", str(folder.resolve()))
    ended = run(words, seconds=clock.left(), kill_after=1.0)
    written = sorted(folder.glob("*.csv"))
    if ended.stopped and not written:
        record.note(wanted.name, "stopped", ended.seconds, "no time was left")
    elif written:
        red = " (a gate is red)" if ended.code == 1 else ""
        record.note(wanted.name, "done", ended.seconds, f"{written[0].name}{red}")
    else:
        store.make_folder(folder)
        store.write_text(folder / "log.txt", ended.output)
        why = re.sub(r"\s+", " ", ended.output)[-200:]
        record.note(wanted.name, "failed", ended.seconds, f"exit code {ended.code}: {why}")
    part = record.parts[wanted.name]
    say(f"{wanted.name}: {part.status}, {part.note}, {ended.seconds:.0f} s")
