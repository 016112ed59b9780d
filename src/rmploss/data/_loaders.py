"""Batches from loader processes, in order; lost processes are replaced once.

A process that ends is noticed by the end of its socket, one that hangs or is stopped by the time
since it began its last sample. The process that replaces it is asked for the same batches. A second
loss at the same batch is an error that names the sample.
"""

import signal
import weakref
from collections.abc import Callable, Iterator
from multiprocessing.connection import wait
from time import monotonic
from typing import NoReturn, Protocol

from torch import Tensor

from rmploss.data._loader_process import NO_FILES, NONE, Answer, LoaderProcess, too_many_files
from rmploss.errors import LoaderError, Problem
from rmploss.randomness import derive

AHEAD = 2
"""Batches for each process that are asked for before they are needed."""
LOOK_S = 1.0
"""Seconds between two looks at a process that is waited for."""


class Source(Protocol):
    """Batches by number, and names for messages."""

    def __len__(self) -> int: ...

    def load(self, batch: int, at: Callable[[int], None]) -> tuple[Tensor, Tensor]:
        """x and labels of a batch, on the CPU; `at(sample)` is called before each sample."""
        ...

    def name(self, batch: int) -> str:
        """Which batch it is."""
        ...

    def samples(self, batch: int) -> list[int]:
        """The numbers of its samples."""
        ...


class Loaders(Iterator[tuple[Tensor, Tensor]]):
    """Iterates the batches of a source.

    source: is used in the processes, which inherit it as it is.
    workers: the number of processes.
    seed: of their generators.
    timeout_s: a process that begins no other sample for so many seconds is lost.
    pin: copy batches into page-locked memory.
    on_loss: called with a sentence for every process that was replaced.

    Raises the `UserError` of a data set; `LoaderError` if processes cannot be started, or are lost
    twice at one batch.
    """

    def __init__(
        self,
        source: Source,
        workers: int,
        *,
        seed: int,
        timeout_s: float,
        pin: bool,
        on_loss: Callable[[str], None],
    ) -> None:
        self.source, self.seed, self.timeout_s, self.pin = source, seed, timeout_s, pin
        self.on_loss = on_loss
        self.processes: list[LoaderProcess] = []
        self._end = weakref.finalize(self, _end, self.processes)
        self._answers: dict[int, tuple[Tensor, ...] | Exception] = {}
        self._lost: set[tuple[int, int]] = set()
        """(place of the process, batch) of the losses."""
        self._next = self._asked = 0
        for place in range(min(workers, len(source))):
            self.processes.append(self._start(place))
        for _ in range(AHEAD * len(self.processes)):
            self._ask()

    def __next__(self) -> tuple[Tensor, Tensor]:
        if self._next == len(self.source):
            self._end()
            raise StopIteration
        try:
            self._receive()
            self._wait_for(self._next)
            content = self._answers.pop(self._next)
            if isinstance(content, Exception):
                raise content
        except BaseException:
            self._end()
            raise
        self._next += 1
        self._ask()
        x, labels = content
        return (x.pin_memory(), labels.pin_memory()) if self.pin else (x, labels)

    def _start(self, place: int) -> LoaderProcess:
        try:
            return LoaderProcess(self.source.load, derive(self.seed, place))
        except OSError as error:
            self._end()
            title = "cannot start the loader processes"
            if error.errno in NO_FILES:
                raise too_many_files(title) from None
            problem = Problem("the system", f"refuses: {error.strerror}", "a lower --workers")
            raise LoaderError(title, [problem]) from None

    def _ask(self) -> None:
        """Ask the least busy process for the next batch."""
        if self._asked < len(self.source):
            min(self.processes, key=lambda process: len(process.asked)).ask(self._asked)
            self._asked += 1

    def _wait_for(self, batch: int) -> None:
        """Wait until a batch is there; replace the processes that are lost meanwhile."""
        begun, deadline = NONE, monotonic() + self.timeout_s
        while batch not in self._answers:
            # Looked up anew each time: the process may have been replaced.
            place = next(i for i, each in enumerate(self.processes) if batch in each.asked)
            process = self.processes[place]
            if process.doing.begun != begun:
                begun, deadline = process.doing.begun, monotonic() + self.timeout_s
            left = deadline - monotonic()
            if left <= 0:
                self._replace(place, f"has not answered for {self.timeout_s:g} s")
                begun = NONE
                continue
            wait([each.fileno() for each in self.processes], min(left, LOOK_S))
            self._receive()

    def _receive(self) -> None:
        """Take the answers that have come, and replace the processes that have ended."""
        for place, process in enumerate(self.processes):
            try:
                while (answer := process.answer()) is not None:
                    self._take(answer)
            except EOFError:
                self._replace(place, "")

    def _take(self, answer: Answer) -> None:
        self._answers[answer.batch] = answer.content

    def _replace(self, place: int, what: str) -> None:
        """Start a process for the batches of a lost one; the error, if it was the second at one."""
        old = self.processes[place]
        old.end()
        doing = old.doing
        # A process that is between batches is lost at the one that the run waits for.
        batch = self._next if doing.batch == NONE else doing.batch
        what = what or _end_of(old.status)
        if (place, batch) in self._lost:
            self._raise_lost(batch, doing.sample, what)
        self._lost.add((place, batch))
        new = self.processes[place] = self._start(place)
        for each in old.asked:
            new.ask(each)
        sample = f"sample {doing.sample}, " if doing.sample != NONE else ""
        name = self.source.name(batch)
        self.on_loss(f"a loader process {what} ({sample}{name}); another one loads its batches")

    def _raise_lost(self, batch: int, sample: int, what: str) -> NoReturn:
        samples, name = self.source.samples(batch), self.source.name(batch)
        listed = ", ".join(map(str, samples[:16])) + (", ..." if len(samples) > 16 else "")
        where = "its samples" if sample == NONE else f"sample {sample}"
        fix = "look at this sample, or load it in the training process with --workers 0"
        if "SIGKILL" in what:
            fix += "; the system kills when memory is short: a lower --workers"
        if "answered" in what:
            fix += "; if it is only slow: --timeout SECONDS"
        raise LoaderError(
            f"a loader process was lost twice at the same batch ({name}); go on with --resume",
            [Problem(where, f"the process {what}", fix), Problem("the batch", f"samples {listed}")],
        )


def _end_of(status: int | None) -> str:
    if status is None:
        return "has closed its connection"
    if status >= 0:
        return f"ended with exit code {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def _end(processes: list[LoaderProcess]) -> None:
    for process in processes:
        process.end()
