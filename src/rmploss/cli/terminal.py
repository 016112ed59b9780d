"""Print a training run: a progress bar on a terminal, lines in a log, or JSON for programs."""

import json
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column
from rich.text import Text

from rmploss.cli.common import is_main
from rmploss.cli.sign_of_life import CLEAR, write
from rmploss.engine.listener import Listener
from rmploss.engine.title import title
from rmploss.recipes import Recipe

WIDE = 100
"""The columns from which a bar is drawn; in fewer, only numbers are shown."""
NARROW = 80
"""In fewer columns the share and the elapsed time stand back, too."""
LEAST_BAR = 12
"""The columns that a bar keeps, with its space."""
TIMES = len(" 100% elapsed 00:00:00 left 00:00:00")
"""The columns of share and times, behind which the other numbers stand back."""
LEFT = len(" left 00:00:00")
"""The columns of the remaining time, which is always shown."""
QUIET_S = 30
"""Seconds between two lines within an epoch."""


def listener(json_lines: bool, waits_for: str = "") -> Listener:
    """The listener: JSON lines on request, else a bar on a terminal, else lines of text.

    waits_for: what a terminal shows until a run begins; "": nothing.
    """
    if json_lines:
        return JsonLines(sys.stdout)
    shows = sys.stderr.isatty() and is_main()
    return Bar(waits_for) if shows else TextLines(sys.stderr)


def epoch_line(
    record: dict[str, Any], epochs: int, width: int = sys.maxsize, split: str = "test"
) -> str:
    """One epoch as a line of at most `width` characters; metrics.jsonl holds all fields.

    record: a line of metrics.jsonl.
    epochs: of the run.
    width: in characters; fields that do not fit are left out.
    split: the word for the split that is tested on, `Recipe.tested_on`.
    """
    accuracy = record.get("averaged_accuracy")
    averaged = [] if accuracy is None else [f"averaged {accuracy:5.2f} %"]
    fields = [
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}",
        f"{split} {record['test_accuracy']:5.2f} %",
        *averaged,
        f"quantization error {record['quantization_error']:.4f}",
        f"loss {record['train_loss']:.3f}",
        f"train {record['train_accuracy']:5.2f} %",
        f"rate {record['firing_rate']:.3f}",
        f"lambda {record['lambda']:.3f}",
        f"{record['train_s'] + record['test_s']:.1f} s",
    ]
    return _fitting(fields, width)


def _fitting(fields: list[str], width: int) -> str:
    """The fields that fit so many columns, the first one always."""
    while len(fields) > 1 and len("  ".join(fields)) > width:
        fields = fields[:-1]
    return "  ".join(fields)


class Speed:
    """The images per second of a phase, from its second batch on.

    batch_size: the images of a full batch.
    """

    def __init__(self, batch_size: int = 0) -> None:
        self.batch_size = batch_size
        self.phase = ("", 0)
        self.first = (0, 0.0)
        """The batches that were done, and the time, when the phase was first seen."""

    def see(self, phase: str, epoch: int, done: int) -> str:
        """`done` batches are done now; returns "123 images/s", or "" while it is not known."""
        now = time.monotonic()
        if self.phase != (phase, epoch):
            self.phase, self.first = (phase, epoch), (done, now)
        batches, seconds = done - self.first[0], now - self.first[1]
        if batches <= 0 or seconds <= 0:
            return ""
        rate = batches * self.batch_size / seconds
        return f"{rate:.0f} images/s" if rate >= 10 else f"{rate:.1f} images/s"


class TextLines(Listener):
    """One line per epoch, and one every half minute within it."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.epochs = 0
        self.start_epoch = 0
        self.split = "test"
        self.began = self.printed = time.monotonic()
        self.speed = Speed()

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """Print the title with its changes, T, seed, device and folder of the run."""
        self.epochs, self.start_epoch = recipe.epochs, epoch
        self.split = recipe.tested_on
        self.speed = Speed(recipe.batch_size)
        self.began = self.printed = time.monotonic()
        self.note(title(recipe))
        self.note(f"T={recipe.T}, seed {recipe.seed}, on {device}: {folder}")

    def loading(self, what: str, done: int, total: int) -> None:
        """Print the progress of the preparation, every half minute."""
        self._note_rarely(f"preparing {what}: {done}/{total}")

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        """Print the progress of training, every half minute."""
        speed = self.speed.see(phase, epoch, done)
        if phase != "train":
            return
        shown = f"  {speed}" if speed else ""
        shown += "".join(f"  {name} {value:.3f}" for name, value in numbers.items())
        fraction = (epoch - 1 - self.start_epoch + done / total) / max(
            self.epochs - self.start_epoch, 1
        )
        left = (time.monotonic() - self.began) * (1 / fraction - 1)
        self._note_rarely(
            f"epoch {epoch}/{self.epochs}  batch {done}/{total}{shown}  left {clock(left)}"
        )

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the results of the epoch."""
        self.note(epoch_line(record, self.epochs, split=self.split))

    def note(self, text: str) -> None:
        """Print a line. Training continues if the stream is closed."""
        self.printed = time.monotonic()
        with suppress(OSError):
            print(text, file=self.out, flush=True)

    def _note_rarely(self, text: str) -> None:
        if time.monotonic() - self.printed >= QUIET_S:
            self.note(text)


class Elapsed(TimeElapsedColumn):
    """The time since the bar was opened, named."""

    def render(self, task: Task) -> Text:
        """The word and the time."""
        return Text.assemble("elapsed ", super().render(task))


class Left(TimeRemainingColumn):
    """The time to the end, named."""

    def render(self, task: Task) -> Text:
        """The word and the time."""
        return Text.assemble("left ", super().render(task))


def whole() -> Column:
    """A column that is not cut: the bar gives way."""
    return Column(no_wrap=True)


class Bar(TextLines):
    """A progress bar over the whole run with its remaining time, and one line per epoch."""

    def __init__(self, waits_for: str = "") -> None:
        super().__init__(sys.stderr)
        self.console = Console(stderr=True, highlight=False)
        self.progress: Progress | None = None
        self.task = TaskID(0)
        self.waits_for = waits_for
        """What people wait for until a run begins; its line gives way to all others."""
        self._waiting = False
        self._wait()

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """Print the run, and open the bar."""
        self._close()
        self.waits_for = ""
        super().begin(recipe, folder, epoch=epoch, device=device)
        self._open("train", total=float(recipe.epochs - epoch))

    def loading(self, what: str, done: int, total: int) -> None:
        """Move the bar of the preparation."""
        if self.progress is None:
            self._open(f"preparing {what}", total=float(total))
        assert self.progress is not None
        self.progress.update(self.task, completed=done, total=total)
        if done >= total:
            self._close()
            self._wait()

    def batch(self, phase: str, epoch: int, done: int, total: int, **numbers: float) -> None:
        """Move the bar."""
        if self.progress is None:
            return
        speed = self.speed.see(phase, epoch, done)
        word = self.split if phase == "test" else phase
        fields = [f"epoch {epoch}/{self.epochs}", f"{word} {done}/{total}"]
        fields += [speed] if speed else []
        fields += [f"{name} {value:.3f}" for name, value in numbers.items()]
        width = self.console.width
        bar = LEAST_BAR if width >= WIDE else 0
        what = _fitting(fields, width - (LEFT if width < NARROW else TIMES) - bar)
        completed = epoch - 1 - self.start_epoch + (done / total if phase == "train" else 1.0)
        self.progress.update(self.task, description=what, completed=completed)

    def epoch(self, record: dict[str, Any]) -> None:
        """Print the results of the epoch above the bar."""
        self.note(epoch_line(record, self.epochs, self.console.width, self.split))

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._stop_waiting()
        with suppress(OSError):
            self.console.print(text, markup=False, soft_wrap=True)
        self._wait()

    def end(self, summary: dict[str, Any]) -> None:
        """Remove the bar."""
        self._close()

    def close(self) -> None:
        """Remove the bar, also after an error."""
        self.waits_for = ""
        self._close()

    def _wait(self) -> None:
        """Show what is waited for, if nothing else is shown."""
        if self.waits_for and self.progress is None:
            self._waiting = True
            write(self.out, f"{CLEAR}{self.waits_for} ...")

    def _stop_waiting(self) -> None:
        if self._waiting:
            self._waiting = False
            write(self.out, CLEAR)

    def _open(self, what: str, total: float) -> None:
        self._stop_waiting()
        columns: list[ProgressColumn] = [TextColumn("{task.description}")]
        if self.console.width >= NARROW:
            columns += [TextColumn("{task.percentage:>3.0f}%"), Elapsed(table_column=whole())]
        columns.append(Left(table_column=whole()))
        if self.console.width >= WIDE:
            columns.insert(1, BarColumn(bar_width=None))
        self.progress = Progress(*columns, console=self.console, transient=True)
        self.task = self.progress.add_task(what, total=total)
        self.progress.start()

    def _close(self) -> None:
        self._stop_waiting()
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


class JsonLines(Listener):
    """Every event of a run as one JSON object per line, for programs."""

    def __init__(self, out: TextIO) -> None:
        self.out = out

    def begin(self, recipe: Recipe, folder: Path, *, epoch: int, device: str) -> None:
        """Print the run."""
        self._print("begin", run=str(folder), recipe=recipe.name, epoch=epoch, device=device)

    def epoch(self, record: dict[str, Any]) -> None:
        """Print a line of metrics.jsonl."""
        self._print("epoch", **record)

    def note(self, text: str) -> None:
        """Print a remark."""
        self._print("note", text=text)

    def end(self, summary: dict[str, Any]) -> None:
        """Print the summary of the run."""
        self._print("end", **summary)

    def _print(self, event: str, **fields: Any) -> None:
        # JSON has no NaN and no infinity: here, as in metrics.jsonl, they are null.
        values = json.loads(json.dumps(fields), parse_constant=lambda _: None)
        with suppress(OSError):
            print(json.dumps({"event": event, **values}), file=self.out, flush=True)


def clock(seconds: float) -> str:
    """A duration as h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"
