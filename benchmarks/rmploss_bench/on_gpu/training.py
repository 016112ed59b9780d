"""A full-size row: estimate its time, train or resume it, pack its run folder.

    seconds = START_S + (epochs that are left) x (seconds of an epoch, test included)

The seconds of an epoch are those of an earlier row of the same speed, else of a short run of the
recipe, scaled by the number of images. A row that does not fit is begun all the same where enough
time is left: it ends with a checkpoint, and the next call resumes it.
"""

import json
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rmploss import store
from rmploss.errors import InterruptedRunError
from rmploss_bench.on_gpu.clock import Clock, run
from rmploss_bench.on_gpu.packing import pack, pieces, unpack
from rmploss_bench.on_gpu.plan import Plan, Row
from rmploss_bench.on_gpu.record import Record
from rmploss_bench.on_gpu.tables import Say

START_S = 25.0
"""Seconds of a process before its first epoch: imports, data, compilation, capture."""
SAVE_S = 30.0
"""Seconds that are kept for the checkpoint of a row that is stopped, and for its archive."""
LEAST_S = 60.0
"""Seconds of training with which a row that does not fit is begun."""


@dataclass
class Training:
    """The rows of a call.

    plan: names device and probe.
    out: the folder of results. OUT/work holds the run folders themselves, OUT/rows the archives.
    record: is written after every row.
    clock: the time that is left.
    say: prints a line.
    least: seconds with which a row is begun that does not fit.
    """

    plan: Plan
    out: Path
    record: Record
    clock: Clock
    say: Say
    least: float = LEAST_S

    def row(self, row: Row) -> None:
        """Train a row to its end or to the end of the time."""
        folder, archive = self.out / "work" / row.name, self.out / "rows" / row.name
        path = self._begun(folder, archive)
        needed, left = self._needed(row, path) + SAVE_S, self.clock.left()
        whole = needed <= left
        some = left >= self.least + START_S + SAVE_S
        verb = "resume" if path else "begin"
        fate = "it will be resumed" if some else f"too little to {verb} it"
        self.say(
            f"{row.name}: about {needed:.0f} s ({SAVE_S:.0f} s of them to save it), "
            f"{left:.0f} s are left" + ("" if whole else f", which is not enough: {fate}")
        )
        if not whole and not some:
            note = "not resumed" if path else "not begun"
            self.record.note(row.name, "stopped", 0.0, f"{note}: too little time was left")
            return
        words = self._resume(path) if path else self._start(row, folder)
        began = time.monotonic()
        try:
            ended = run(words, seconds=self.clock.left() - SAVE_S, kill_after=SAVE_S / 2)
        except SystemExit:  # a signal to this process, which the row got, too
            if path := self._begun(folder, archive):
                code = InterruptedRunError.exit_code
                self._keep(row, path, archive, code, time.monotonic() - began)
            raise
        path = self._begun(folder, archive)
        if path is None:
            why = re.sub(r"\s+", " ", ended.output)[-300:]
            self.record.note(row.name, "failed", ended.seconds, f"exit code {ended.code}: {why}")
        else:
            self._keep(row, path, archive, ended.code, ended.seconds)
        part = self.record.parts[row.name]
        self.say(f"{row.name}: {part.status}, {part.note}, {ended.seconds:.0f} s")

    def _keep(self, row: Row, path: Path, archive: Path, code: int, seconds: float) -> None:
        """Pack the run folder and note what became of the row."""
        metrics = _metrics(path)
        self._learn(row.speed, metrics)
        # A run writes its analysis behind result.json: without it, it is not finished.
        finished = code == 0 and (path / "result.json").is_file()
        pack(path, archive, checkpoints=not finished)
        last = metrics[-1] if metrics else {}
        note = f"epoch {last.get('epoch', 0)}, {last.get('test_accuracy', 0):.2f} %"
        if finished:
            note += f", quantization error {last['quantization_error']:.4f}"
            self.record.note(row.name, "done", seconds, note)
        elif code in (InterruptedRunError.exit_code, -9, -15):
            self.record.note(row.name, "stopped", seconds, note)
        else:
            self.record.note(row.name, "failed", seconds, f"exit code {code} after {note}")

    def _begun(self, folder: Path, archive: Path) -> Path | None:
        """The run folder of a row, restored from its archive if need be; None: not yet begun."""
        runs = sorted(path.parent for path in folder.glob("*/recipe.json"))
        if not runs and pieces(archive):
            return unpack(archive, folder)
        return runs[0] if runs else None

    def _start(self, row: Row, folder: Path) -> tuple[str, ...]:
        return self._train(row.recipe, *row.words, "--runs-dir", str(folder))

    def _resume(self, path: Path) -> tuple[str, ...]:
        return self._train("--resume", str(path))

    def _train(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "rmploss", "train", *words, "--device", self.plan.device)

    def _needed(self, row: Row, path: Path | None) -> float:
        """The estimate of the module's docstring; 0 for a row whose speed cannot be measured."""
        if path is not None:
            self._learn(row.speed, _metrics(path))
        if row.speed not in self.record.epochs and self.plan.probe:
            self._probe(row)
        done = len(_metrics(path)) if path else 0
        return START_S + (self._epochs(row) - done) * self.record.epochs.get(row.speed, 0.0)

    def _epochs(self, row: Row) -> int:
        from rmploss import recipes

        return _option(row.words, "--epochs", recipes.get(row.recipe).epochs)

    def _probe(self, row: Row) -> None:
        """Measure an epoch by a short run of the recipe."""
        folder = self.out / "work" / "probe"
        store.remove_tree(folder)
        words = (*row.words, *self.plan.probe, "--runs-dir", str(folder))
        ended = run(self._train(row.recipe, *words), seconds=self.clock.left() - SAVE_S)
        runs = sorted(folder.glob("*/metrics.jsonl"))
        metrics = _metrics(runs[0].parent) if runs else []
        if metrics:
            train = _option(row.words, "--train-samples", 50_000) / _option(
                self.plan.probe, "--train-samples", 50_000
            )
            test = _option(row.words, "--test-samples", 10_000) / _option(
                self.plan.probe, "--test-samples", 10_000
            )
            last = metrics[-1]  # the first epoch compiles and captures
            self.record.epochs[row.speed] = last["train_s"] * train + last["test_s"] * test
            self.record.write()
            self.say(f"{row.name}: {self.record.epochs[row.speed]:.2f} s an epoch, measured")
        else:
            why = f"no measured step (exit code {ended.code})"
            if ended.stopped:
                why = "no time was left to measure a step"
            self.say(f"{row.name}: {why}")

    def _learn(self, speed: str, metrics: list[dict[str, Any]]) -> None:
        """Take the median epoch of a row that has more than one."""
        if len(metrics) > 1:
            seconds = [line["train_s"] + line["test_s"] for line in metrics[1:]]
            self.record.epochs[speed] = round(statistics.median(seconds), 3)


def _option(words: Sequence[str], flag: str, default: int) -> int:
    """The number behind a flag of a command line; the default without it."""
    return int(words[words.index(flag) + 1]) if flag in words else default


def _metrics(path: Path) -> list[dict[str, Any]]:
    """The epochs of a run folder."""
    file = path / "metrics.jsonl"
    return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []
