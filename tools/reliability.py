"""The faults that are tested, and the generated parts of docs/reliability.md.

    python tools/reliability.py            run all tests of faults, and store how many passed
    python tools/reliability.py FILE ...   count those of these test files again

`FAULTS` is the one list: `tests/conftest.py` marks its tests with `faults` (`pytest -m faults`),
and the table of the document counts those that passed when they were last recorded.
"""

import json
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmploss import store

ROOT = Path(__file__).parent.parent
RECORDED = ROOT / "docs" / "reliability.json"
TRIALS = ROOT / "docs" / "faults.json"
MUTATIONS = ROOT / "docs" / "mutations.json"


@dataclass(frozen=True)
class Fault:
    """A kind of fault, and the tests that inject it.

    what: the fault.
    holds: what must hold.
    tests: files, or "file::function".
    """

    what: str
    holds: str
    tests: tuple[str, ...]


FAULTS: dict[str, tuple[Fault, ...]] = {
    "Death": (
        Fault(
            "SIGKILL before every change of the disk, in every function that writes",
            "the complete old content or the complete new one",
            (
                "tests/test_store_crashes.py::test_kill_before_every_change",
                "tests/engine/test_checkpoint.py::test_a_save_killed_at_any_change_leaves_a_checkpoint",
            ),
        ),
        Fault(
            "SIGKILL before and after every phase of training",
            "resumed, the run is the unbroken one bit for bit",
            (
                "tests/engine/test_crashes.py",
                "tests/engine/test_resume.py::test_kill_9_loses_only_what_came_after_the_last_checkpoint",
            ),
        ),
        Fault(
            "loss of power after every change of the disk",
            "what was acknowledged is there, whole",
            ("tests/test_store_crashes.py::test_loss_of_power_after_every_change",),
        ),
        Fault(
            "SIGTERM, SIGINT, SIGUSR1, SIGHUP, once and twice, also to the whole group",
            "a checkpoint after the step, exit 75; the second ends the process",
            (
                "tests/engine/test_signals.py",
                "tests/engine/test_resume.py::test_a_signal_at_any_point_leaves_a_checkpoint_to_go_on_from",
                "tests/cli/test_signals.py",
            ),
        ),
        Fault(
            "a machine that is lost, a scheduler's requeue, `torchrun --max-restarts`",
            "`--resume auto` goes on; at most ten minutes are lost",
            (
                "tests/engine/test_go_on.py",
                "tests/engine/test_restarts.py",
                "tests/engine/test_attempt.py",
            ),
        ),
        Fault(
            "several of these and of those below at once, in whole runs",
            "the digest of the unbroken run; see below",
            ("tests/test_faults.py",),
        ),
    ),
    "Disk": (
        Fault(
            "full (ENOSPC) or failing (EIO) at every change",
            "old content untouched, no temporary left",
            (
                "tests/test_store_crashes.py::test_error_at_every_change",
                "tests/test_store.py",
                "tests/engine/test_checkpoint.py::test_a_full_disk_costs_no_checkpoint",
            ),
        ),
        Fault(
            "refuses one write or fsync of a run; refuses for good; a folder is replaced by a link",
            "the first costs nothing; else exit 5, and nothing is written to the wrong place",
            ("tests/engine/test_disk.py",),
        ),
        Fault(
            "a place that cannot be written, odd names",
            "told before any work, nothing is left",
            (
                "tests/engine/test_run.py::test_a_place_that_cannot_be_written_is_reported_before_any_work",
                "tests/engine/test_run.py::test_bad_names_are_refused_and_nothing_is_made",
            ),
        ),
    ),
    "Rot": (
        Fault(
            "a checkpoint truncated, flipped, mixed, missing, sealed again",
            "refused with the reason; the one before is taken, and said to be",
            ("tests/engine/test_checkpoint.py",),
        ),
        Fault(
            "every file of a finished run damaged in twenty ways, before every verb",
            "`verify` names the file, no verb ends in a traceback",
            ("tests/engine/test_verify.py",),
        ),
        Fault(
            "half a line, lost and doubled lines of the record",
            "mended up to the checkpoint, or told",
            (
                "tests/engine/test_run.py::test_rewind_mends_what_a_crash_left",
                "tests/engine/test_run.py::test_a_half_written_line_is_left_out_by_readers",
            ),
        ),
        Fault(
            "run folders of earlier versions",
            "resumed, evaluated, reported; a refusal shows what differs",
            ("tests/test_old_runs.py",),
        ),
        Fault(
            "archives, pickles and recordings that are cut, hostile, or others",
            "nothing is run or written outside; file and byte are named",
            (
                "tests/data/test_fetch.py",
                "tests/data/test_unpickle.py",
                "tests/data/test_aedat.py",
                "tests/data/test_nmnist.py",
            ),
        ),
    ),
    "Numbers": (
        Fault(
            "NaN and infinities, on one rank as well; batches of one sample, T = 1",
            "exit 3 before the update, parameters as before",
            (
                "tests/engine/test_train.py::test_what_is_not_finite_never_reaches_the_parameters",
                "tests/engine/test_train.py::test_the_smallest_recipes_stay_finite",
                "tests/engine/test_ranks.py::test_a_nan_on_one_rank_stops_both_before_the_update",
            ),
        ),
        Fault(
            "a rate or a length that was wrong",
            "`--fork` goes on from a checkpoint with another one, and records it",
            ("tests/engine/test_fork.py",),
        ),
    ),
    "Processes": (
        Fault(
            "a signal to one of two or three ranks; loader processes beside it",
            "all stop after the same step; resumed, the run is the unbroken one bit for bit",
            (
                "tests/engine/test_ranks.py::test_a_signal_to_one_rank_stops_both_after_the_same_step",
                "tests/engine/test_ranks.py::test_ranks_that_go_on_within_an_epoch_end_as_the_unbroken_run",
                "tests/engine/test_resume.py::test_loader_processes_change_nothing",
            ),
        ),
        Fault(
            "SIGKILL or SIGSTOP of one of two ranks; ranks of other versions, source or recipes",
            "the others name it and the last step in time, exit 11; the latter exit 2",
            ("tests/engine/test_lost_ranks.py",),
        ),
        Fault(
            "a wrong environment, a taken port, ranks that do not come",
            "told, exit 2",
            (
                "tests/engine/test_distributed.py::test_a_wrong_environment_is_reported_whole",
                "tests/engine/test_distributed.py::test_a_port_that_is_taken_is_reported",
                "tests/engine/test_distributed.py::test_a_rank_without_others_times_out",
            ),
        ),
    ),
    "Words": (
        Fault(
            "wrong names, values and combinations of options",
            "all told at once with what to type, exit 2, nothing written",
            ("tests/cli/test_mistakes.py", "tests/engine/test_build.py"),
        ),
        Fault(
            "closed streams, narrow and plain terminals",
            "no traceback; training outlives its reader",
            ("tests/cli/test_streams.py",),
        ),
    ),
}
"""Every kind of fault, by its family."""


def is_fault_test(node: str) -> bool:
    """True for a test of this list.

    node: "file::function", without parameters.
    """
    return any(_covers(test, node) for kind in FAULTS.values() for f in kind for test in f.tests)


def faults_table() -> str:
    """The table of faults, with the number of tests that passed when they were recorded."""
    passed = json.loads(RECORDED.read_text(encoding="utf-8"))["passed"]
    lines = ["| fault | what holds | injected | tests |", "|---|---|---:|---|"]
    for family, faults in FAULTS.items():
        lines.append(f"| **{family}** | | | |")
        for fault in faults:
            counts = [
                sum(n for node, n in passed.items() if _covers(test, node)) for test in fault.tests
            ]
            count = f"{sum(counts):,}" if all(counts) else "not counted yet"
            files = list(dict.fromkeys(test.partition("::")[0] for test in fault.tests))
            links = ", ".join(f"[`{Path(file).name}`](../{file})" for file in files)
            lines.append(f"| {fault.what} | {fault.holds} | {count} | {links} |")
    return "\n".join(lines)


def recorded() -> str:
    """When the tests ran, and how long they took."""
    record = json.loads(RECORDED.read_text(encoding="utf-8"))
    total, seconds = sum(record["passed"].values()), sum(record["seconds"].values())
    return f"`pytest -m faults`: {total:,} tests passed, in {seconds:.0f} s of a shared machine."


def trials() -> str:
    """What the whole runs under random faults met, and how they ended."""
    if not TRIALS.exists():
        return "Not recorded yet: `python tools/faults.py --out docs/faults.json`."
    found = json.loads(TRIALS.read_text(encoding="utf-8"))
    struck = sum(found["faults"].values())
    text = (
        f"`{found['command']}`: {found['trials']} runs, {found['trials_of_several_ranks']} of them "
        f"of two or three ranks ({found['trials_restarted_as_by_torchrun']} restarted as by "
        f"`torchrun`) and {found['trials_with_a_loader_process']} with a loader process, in "
        f"{found['executions']} executions under {struck} faults, in {found['minutes']:.0f} "
        f"minutes. {found['finished']} finished with the digest of the unbroken run "
        f"({found['inexact']} inexact with a reason); {len(found['wrong'])} things did not hold."
    )
    lines = [
        text,
        "",
        "| fault | struck |",
        "|---|---:|",
        *(f"| {fault} | {count} |" for fault, count in found["faults"].items()),
        "",
        "| exit code | executions |",
        "|---|---:|",
        *(f"| {_exit(int(code))} | {count} |" for code, count in found["exits"].items()),
    ]
    if found["wrong"]:
        lines += ["", *(f"* {line}" for line in found["wrong"])]
    return "\n".join(lines)


def mutations() -> str:
    """The mutations, and the tests that noticed them."""
    found: dict[str, dict[str, Any]] = json.loads(MUTATIONS.read_text(encoding="utf-8"))
    lines = ["| the code is changed so that | noticed by |", "|---|---|"]
    for entry in found.values():
        file, _, test = entry["noticed by"].partition("::")
        where = f"[`{test.partition('[')[0]}`](../{file})" if file else "**no test**"
        lines.append(f"| {entry['what']} | {where} |")
    return "\n".join(lines)


def _exit(code: int) -> str:
    words = {0: "finished", 5: "the disk", 8: "a loader process", 11: "another rank"}
    words |= {75: "stopped, to be resumed", 130: "Ctrl-C"}
    return f"signal {-code}" if code < 0 else f"{code}: {words.get(code, 'see `rmploss.errors`')}"


def _covers(test: str, node: str) -> bool:
    return node == test or node.startswith(f"{test}::")


def main(files: list[str]) -> int:
    """Run tests of faults, and store how many passed; returns pytest's exit code.

    files: whose tests are counted again; none: all.
    """
    words = ["-m", "pytest", "-q", "-m", "faults", "-o", "junit_family=xunit1"]
    with tempfile.TemporaryDirectory() as scratch:
        report = Path(scratch) / "junit.xml"
        done = subprocess.run(
            [sys.executable, *words, f"--junitxml={report}", *files], cwd=ROOT, check=False
        )
        cases = [*ElementTree.parse(report).getroot()[0].iter("testcase")]
    if done.returncode:
        return done.returncode
    store.update(RECORDED, lambda: _counted(files, cases))
    return 0


def _counted(files: list[str], cases: Sequence[ElementTree.Element]) -> bytes:
    """The record with these tests counted again."""
    record = json.loads(RECORDED.read_text(encoding="utf-8"))
    for part in ("passed", "seconds"):
        kept = record[part].items()
        record[part] = {n: x for n, x in kept if files and n.partition("::")[0] not in files}
    passed: Counter[str] = Counter(record["passed"])
    seconds: defaultdict[str, float] = defaultdict(float, record["seconds"])
    for case in cases:
        seconds[case.attrib["file"]] += float(case.attrib["time"])
        if len(case) == 0:  # no failure, no error, not skipped
            passed[f"{case.attrib['file']}::{case.attrib['name'].partition('[')[0]}"] += 1
    record["passed"] = dict(sorted(passed.items()))
    record["seconds"] = {file: round(s, 1) for file, s in sorted(seconds.items())}
    return f"{json.dumps(record, indent=1)}\n".encode()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
