"""The GPU tests and the tables of the bench, each in a process of its own."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from rmploss import store
from rmploss_bench.on_gpu.clock import Clock, Ended, run
from rmploss_bench.on_gpu.plan import Plan, Table
from rmploss_bench.on_gpu.record import Record, Status

ROOT = Path(__file__).parents[3]
"""The clone, which holds the tests."""
TESTS_S = 60.0
"""The least time with which the tests are begun, in seconds."""
TESTS_TIMES, TABLE_TIMES = 5, 3
"""How many times its rough time a part may take; then it hangs, and the next part begins."""
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
    most = TESTS_TIMES * TESTS_S
    ended = run(words, seconds=min(most, clock.left()), kill_after=5.0, folder=ROOT)
    lines = [line.strip("= ") for line in ended.output.splitlines() if line.strip()]
    last = lines[-1] if lines else "no output"
    store.write_text(out / "tests.txt", ended.output)
    status = "done" if ended.code == 0 else "failed"
    if ended.stopped:
        status, last = _cut_off(ended, most)
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
    most = TABLE_TIMES * wanted.seconds
    ended = run(words, seconds=min(most, clock.left()), kill_after=1.0)
    written = sorted(folder.glob("*.csv"))
    if ended.stopped and not written:
        status, why = _cut_off(ended, most)
        record.note(wanted.name, status, ended.seconds, why)
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


def _cut_off(ended: Ended, most: float) -> tuple[Status, str]:
    """What became of a part that was asked to stop, and why.

    most: the seconds that it had if there was time. Over them it has failed, for good: taken up
        again, it would take the time of the other parts in every call.
    """
    if ended.seconds >= most:
        return "failed", f"not at its end after {most:.0f} s"
    return "stopped", "no time was left"
