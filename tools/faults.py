"""Train a small run under random faults until it is finished, many times over:

    python tools/faults.py --trials 200 --seed 0 --out docs/faults.json

A trial is one run on the digits: alone or of two or three ranks, with or without a loader process.
Ranks notice the loss of another one, or are all restarted as by `torchrun --max-restarts`. Its
first executions meet several faults at once (`fault_plan.py`), drawn from the seed. Each is
followed by the next, of the same command with `--resume auto`, and the last one meets none. Then
must hold:

* the run is finished, and its digest is that of an unbroken run; else the run says "inexact",
* `rmploss verify` finds nothing: all files parse and have the hashes of the manifest,
* no temporary, no checkpoint set aside and no lock is left, steps increase strictly,
* after every fault, the newest sound checkpoint is at least as new as before it,
* no execution hangs, ends in a traceback or with an exit code that its faults do not explain.

This process imports torch once, computes nothing and forks an execution in a few milliseconds.
Exit code 1 if anything did not hold. 200 trials take some minutes on one core. The counts are
stored after every trial; the same command on the same commit goes on with those of `--out`.
"""

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process of one thread may fork

import fault_child
from fault_child import Ended
from fault_plan import ALLOWED, SIGNAL, Setting, draw_faults, draw_setting

from rmploss import recipes
from rmploss.engine.environment import environment

RECIPE = recipes.override(
    recipes.get("digits-rmp"),
    {
        "epochs": 3,
        "train_samples": 54,
        "test_samples": 16,
        "batch_size": 18,
        "network.width": 0.125,
        "T": 2,
    },
)
"""Three epochs of three steps, of batches that two ranks and three can share."""


class Wrong(Protocol):
    """Counts what did not hold, with the last words of the execution."""

    def __call__(self, what: str, ended: Ended | None = None) -> None:
        """Count."""


@dataclass
class Unbroken:
    """What a run without faults does; the faults of other runs are drawn in these bounds.

    digest: of the run.
    metrics: the records of metrics.jsonl without times.
    changes: the number of its changes of the disk.
    seconds: its duration.
    """

    digest: str
    metrics: list[dict[str, Any]]
    changes: int
    seconds: float


@dataclass
class Count:
    """What all trials did.

    seconds: the time that they took.
    faults: how often each kind struck.
    exits: how often each exit code was seen, minus the signal for a killed process.
    wrong: one line for everything that did not hold.
    """

    trials: int = 0
    seconds: float = 0.0
    executions: int = 0
    finished: int = 0
    inexact: int = 0
    ranks: int = 0
    restarted: int = 0
    loaders: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    exits: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)


def main() -> int:
    """Run the trials, print and store what was counted; 1 if something did not hold."""
    options = _parser().parse_args()
    count = _counted(options)
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        folder = Path(scratch)
        unbroken = {ranks: run_unbroken(folder / f"unbroken{ranks}", ranks) for ranks in (1, 2, 3)}
        for number in range(count.trials, options.trials):
            began, place = time.monotonic(), folder / str(number)
            trial(place, random.Random(f"{options.seed}/{number}"), unbroken, count, number)
            if options.keep and any(line.startswith(f"trial {number}:") for line in count.wrong):
                shutil.copytree(place, options.keep / str(number), symlinks=True)
            shutil.rmtree(place)
            count.trials, count.seconds = number + 1, count.seconds + time.monotonic() - began
            _show(number + 1, options.trials, count)
            _store(options, count)
    print(json.dumps(_result(options, count), indent=2))
    return 1 if count.wrong else 0


def _counted(options: argparse.Namespace) -> Count:
    """The counts of the same trials on the same commit in `--out`; else none."""
    if options.out is None or not options.out.exists():
        return Count()
    found = json.loads(options.out.read_text(encoding="utf-8"))
    if any(found[name] != x for name, x in _result(options, Count()).items() if name in _SAME):
        return Count()
    return Count(
        trials=found["trials"],
        seconds=60 * found["minutes"],
        executions=found["executions"],
        finished=found["finished"],
        inexact=found["inexact"],
        ranks=found["trials_of_several_ranks"],
        restarted=found["trials_restarted_as_by_torchrun"],
        loaders=found["trials_with_a_loader_process"],
        faults=Counter(found["faults"]),
        exits=Counter({int(code): n for code, n in found["exits"].items()}),
        wrong=found["wrong"],
    )


_SAME = ("command", "versions", "commit")
"""What trials have in common that are counted together."""


def _store(options: argparse.Namespace, count: Count) -> None:
    if options.out is not None:
        text = json.dumps(_result(options, count), indent=2) + "\n"
        options.out.write_text(text, encoding="utf-8")


def run_unbroken(place: Path, ranks: int) -> Unbroken:
    """A run without faults."""
    began = time.monotonic()
    ended = fault_child.execute(place, RECIPE, Setting(ranks, workers=0, every_step=True), [])
    seconds = time.monotonic() - began
    if any(ended.codes):
        sys.exit(f"the run without faults ended with {ended.codes}:\n{ended.output}")
    (path,) = place.iterdir()
    found = fault_child.examine(path)
    return Unbroken(found["digest"], found["metrics"], ended.changes, seconds)


def trial(
    place: Path, rng: random.Random, unbroken: dict[int, Unbroken], count: Count, number: int
) -> None:
    """One run under faults until it is finished.

    place: a folder of its own.
    rng: draws the faults.
    unbroken: by the number of ranks.
    number: of the trial, for `Count.wrong`.
    """
    setting = draw_setting(rng)
    expected = unbroken[setting.ranks]
    count.ranks += setting.ranks > 1
    count.restarted += setting.restarted
    count.loaders += setting.workers > 0
    troubled = rng.randint(1, 4)
    newest = -1
    place.mkdir()

    def wrong(what: str, ended: Ended | None = None) -> None:
        output = "" if ended is None else ": " + " | ".join(ended.output.splitlines()[-4:])
        count.wrong.append(f"trial {number}: {what} ({setting}){output}")

    with fault_child.served_store(setting) as port:
        for execution in range(troubled + 1):
            faults = []
            if execution < troubled:
                faults = draw_faults(rng, setting, expected.changes, expected.seconds)
            ended = fault_child.execute(place, RECIPE, setting, faults, port)
            count.executions += 1
            count.faults.update(fault.kind for fault in ended.struck)
            count.exits.update(ended.codes)
            _check_end(ended, setting, wrong)
            runs = [path for path in place.iterdir() if not path.name.startswith(".")]
            if len(runs) > 1:
                wrong(f"{len(runs)} run folders")
            if not any(ended.codes):
                _check_run(runs[0], expected, count, wrong)
                return
            step = fault_child.newest_step(runs[0]) if runs else -1
            if step < newest:
                wrong(f"the newest checkpoint was of step {newest}, and is of step {step}", ended)
            newest = max(newest, step)
            if not faults:
                wrong("does not go on without faults", ended)


def _check_end(ended: Ended, setting: Setting, wrong: Wrong) -> None:
    """Whether the exit codes and the words of an execution are those of its faults."""
    if ended.hung:
        wrong(f"hung after {[f.kind for f in ended.struck]}", ended)
    allowed = {0}
    for fault in ended.struck:
        allowed |= ALLOWED[fault.kind]
    if "cannot connect to the" in ended.output:
        allowed.add(2)  # Another rank died before all had met.
    if setting.restarted and ended.struck:
        allowed |= ALLOWED[SIGNAL]  # The agent stops the others.
    strange = [code for code in ended.codes if code not in allowed]
    if strange and not ended.hung:
        wrong(f"exit {strange} after {[f.kind for f in ended.struck]}", ended)
    if "bug of rmploss" in ended.output or "Traceback" in ended.output:
        wrong(f"a traceback after {[f.kind for f in ended.struck]}", ended)


def _check_run(path: Path, expected: Unbroken, count: Count, wrong: Wrong) -> None:
    """Whether a finished run is the unbroken one, and its folder in order."""
    found = fault_child.examine(path)
    if found["state"] != "finished" or found["damages"]:
        wrong(f"{found['state']}, {found['damages']}")
        return
    count.finished += 1
    if found["left"]:
        wrong(f"left behind: {found['left']}")
    if not found["lock_free"]:
        wrong("the lock is held")
    steps = [record["step"] for record in found["metrics"]]
    if steps != sorted(set(steps)):
        wrong(f"the steps of metrics.jsonl are {steps}")
    if found["inexact"]:
        count.inexact += 1
    elif found["digest"] != expected.digest or found["metrics"] != expected.metrics:
        wrong("the digest is not that of the unbroken run, and no reason is recorded")
    if found["damaged"]:
        wrong(f"the record was damaged: {found['damaged']}")


def _show(done: int, total: int, count: Count) -> None:
    if done % 10 == 0 or done == total:
        struck, wrong = sum(count.faults.values()), len(count.wrong)
        text = f"{done}/{total} trials, {count.executions} executions, {struck} faults"
        print(f"{text}, {wrong} wrong", file=sys.stderr, flush=True)


def _result(options: argparse.Namespace, count: Count) -> dict[str, Any]:
    here = environment()
    return {
        "command": f"python tools/faults.py --trials {options.trials} --seed {options.seed}",
        "versions": {"rmploss": here["rmploss"], "torch": here["torch"]},
        "commit": here["commit"],
        "trials": count.trials,
        "finished": count.finished,
        "inexact": count.inexact,
        "trials_of_several_ranks": count.ranks,
        "trials_restarted_as_by_torchrun": count.restarted,
        "trials_with_a_loader_process": count.loaders,
        "executions": count.executions,
        "faults": dict(sorted(count.faults.items())),
        "exits": {str(code): n for code, n in sorted(count.exits.items())},
        "wrong": count.wrong,
        "minutes": round(count.seconds / 60, 2),
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="also write the counts to this JSON file")
    parser.add_argument("--keep", type=Path, help="copy the folders of what went wrong here")
    return parser


if __name__ == "__main__":
    sys.exit(main())
