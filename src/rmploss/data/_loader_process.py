"""One loader process: a fork that loads batches for its parent, at the other end of a socket.

The parent asks for a batch by its number. The answer is one message: JSON and, for a batch, the
descriptor of a file in memory that holds its tensors. A message arrives whole or not at all, so
that the parent never waits within one, whatever becomes of the process. What the process is doing
it writes into memory that both share, where the parent finds it after a death without a word.

Loader processes exist on Linux alone (`os.memfd_create`, SOCK_SEQPACKET).
"""

import errno
import json
import math
import mmap
import os
import random
import signal
import socket
import struct
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Thread
from time import monotonic, sleep
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from rmploss import errors
from rmploss.errors import LoaderError, Problem, UserError

NONE = -1
"""In `Doing`: no batch, no sample."""
NO_FILES = (errno.EMFILE, errno.ENFILE)
"""The errors of a process, or a system, that may open no further file."""
REAP_S = 5.0
"""How long to wait for the end of a killed process; one that the kernel holds is left behind."""
_MESSAGE = 2**16
MOST_NOTE = 4096
"""The last characters of a traceback that a message takes: less than a sixth of `_MESSAGE`."""
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_DOING = struct.Struct("qqq")


class Load(Protocol):
    """Loads a batch by its number: tensors on the CPU; calls `at(sample)` before each sample."""

    def __call__(self, batch: int, at: Callable[[int], None], /) -> tuple[Tensor, ...]:
        """Load."""
        ...


class Doing(NamedTuple):
    """What a process does: the batch and the sample that it loads, and how many it has begun."""

    batch: int
    sample: int
    begun: int


@dataclass(frozen=True)
class Answer:
    """A batch, or the error of loading it.

    batch: its number.
    """

    batch: int
    content: tuple[Tensor, ...] | Exception


class LoaderProcess:
    """A process that loads batches.

    load: is called in it.
    seed: of the generators of torch, NumPy and Python there.

    Raises `OSError` if the system refuses another process or descriptor.
    """

    def __init__(self, load: Load, seed: int) -> None:
        self.asked: list[int] = []
        """The batches that it has been asked for and has not answered."""
        self.status: int | None = None
        """Its exit code, or minus the signal that killed it; None: it runs."""
        self._parent = os.getpid()
        self._doing = mmap.mmap(-1, _DOING.size)
        self._write_doing(Doing(NONE, NONE, 0))
        self._socket, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.setblocking(False)
        with there, _signals_blocked():
            try:
                _flush()
                self.pid = _fork()
            except OSError:
                self._socket.close()
                raise
            if self.pid == 0:
                self._be_loader(load, seed, there)

    def fileno(self) -> int:
        """The socket's descriptor, readable if there is an answer or the process has ended."""
        return self._socket.fileno()

    def ask(self, batch: int) -> None:
        """Ask for a batch. A process that has ended is noticed by `answer`."""
        self.asked.append(batch)
        with suppress(ConnectionError):
            self._socket.send(struct.pack("q", batch))

    def answer(self) -> Answer | None:
        """The next answer, without waiting; None if there is none.

        Raises `EOFError` if the process has ended, `LoaderError` without descriptors left.
        """
        try:
            text, descriptors, _, _ = socket.recv_fds(self._socket, _MESSAGE, 1)
        except BlockingIOError:
            if self._poll() is not None:
                raise EOFError from None
            return None
        except ConnectionError:
            text, descriptors = b"", []
        if not text:
            raise EOFError
        message = json.loads(text)
        self.asked.remove(message["batch"])
        return Answer(message["batch"], _content(message, descriptors))

    @property
    def doing(self) -> Doing:
        """What the process does, or did when it ended."""
        return Doing(*_DOING.unpack(self._doing[:]))

    def end(self) -> None:
        """Kill the process, stopped or not, and wait for its end."""
        if os.getpid() != self._parent:  # in a loader, which inherits the others
            return
        self._socket.close()
        if self._poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
        deadline = monotonic() + REAP_S
        while self._poll() is None and monotonic() < deadline:
            sleep(0.001)

    def _poll(self) -> int | None:
        if self.status is None:
            try:
                pid, status = os.waitpid(self.pid, os.WNOHANG)
            except ChildProcessError:  # another part of the program has waited for it
                pid, status = self.pid, 0
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
        return self.status

    def _write_doing(self, doing: Doing) -> None:
        self._doing[:] = _DOING.pack(*doing)

    def _be_loader(self, load: Load, seed: int, there: socket.socket) -> None:
        """The life of the process, which does not return."""
        code = 1
        try:
            self._socket.close()
            Thread(target=_end_with, args=(self._parent,), daemon=True).start()
            torch.set_num_threads(1)
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)  # noqa: NPY002  # what transforms draw from
            random.seed(seed)
            self._serve(load, there)
            code = 0
        except SystemExit as end:  # of a data set
            code = end.code if isinstance(end.code, int) else int(end.code is not None)
        except ConnectionError:
            code = 0  # The parent has ended.
        except BaseException as error:
            sys.excepthook(type(error), error, error.__traceback__)
        finally:
            _flush()
            os._exit(code)

    def _serve(self, load: Load, there: socket.socket) -> None:
        begun = 0
        while request := there.recv(8):
            (batch,) = struct.unpack("q", request)

            def at(sample: int, batch: int = batch) -> None:
                nonlocal begun
                begun += 1
                self._write_doing(Doing(batch, sample, begun))

            at(NONE)
            try:
                _send(there, batch, load(batch, at))
            except ConnectionError:
                raise
            except Exception as error:
                there.send(json.dumps({"batch": batch, "error": _words(error)}).encode())
            self._write_doing(Doing(NONE, NONE, begun))


def _send(there: socket.socket, batch: int, tensors: Sequence[Tensor]) -> None:
    """Send tensors in a file in memory, one behind the other."""
    layout = [(str(t.dtype).removeprefix("torch."), list(t.shape)) for t in tensors]
    size = sum(_padded(t.nbytes) for t in tensors)
    descriptor = os.memfd_create("batch")
    try:
        os.posix_fallocate(descriptor, 0, max(size, 1))  # without memory an error, not SIGBUS
        for ours, given in zip(_tensors(descriptor, layout), tensors, strict=True):
            ours.copy_(given)
        text = json.dumps({"batch": batch, "layout": layout}).encode()
        socket.send_fds(there, [text], [descriptor])
    finally:
        os.close(descriptor)


def _tensors(descriptor: int, layout: Sequence[tuple[str, list[int]]]) -> tuple[Tensor, ...]:
    """The tensors of a file in memory, which lives as long as they."""
    memory = mmap.mmap(descriptor, 0)
    tensors, offset = [], 0
    for name, shape in layout:
        dtype = getattr(torch, name)
        count = math.prod(shape)
        if count:
            flat = torch.frombuffer(memory, dtype=dtype, count=count, offset=offset)
        else:
            flat = torch.empty(0, dtype=dtype)
        tensors.append(flat.view(shape))
        offset += _padded(count * dtype.itemsize)
    return tuple(tensors)


def _padded(size: int) -> int:
    """A size up to the next multiple of a line of the cache."""
    return -(-size // 64) * 64


def _content(message: dict[str, Any], descriptors: list[int]) -> tuple[Tensor, ...] | Exception:
    if "error" in message:
        return _error(message["error"])
    title = "the training process cannot receive a batch"
    if not descriptors:
        raise too_many_files(title)
    try:
        return _tensors(descriptors[0], message["layout"])
    except OSError as error:
        if error.errno not in NO_FILES:
            raise
        raise too_many_files(title) from None
    finally:
        os.close(descriptors[0])


def _words(error: Exception) -> dict[str, Any]:
    """An error for JSON, short enough for a message."""
    if isinstance(error, UserError):
        lines = [
            [text[:1000] for text in (problem.where, problem.what, problem.fix)]
            for problem in error.problems[:10]
        ]
        notes = [note[-MOST_NOTE:] for note in getattr(error, "__notes__", [])[:1]]
        words = {"kind": type(error).__name__, "title": error.title[:1000], "notes": notes}
        return {**words, "problems": lines}
    return {"kind": type(error).__name__, "text": str(error)[:1000]}


def _error(words: dict[str, Any]) -> Exception:
    if "title" in words:
        kind = getattr(errors, words["kind"], UserError)
        error = kind(words["title"], [Problem(*line) for line in words["problems"]])
        for note in words["notes"]:
            error.add_note(note)
        return error
    if words["kind"] == "MemoryError":
        return MemoryError(words["text"])
    return RuntimeError(f"{words['kind']}: {words['text']}")


def too_many_files(title: str) -> LoaderError:
    """The error of a process that may open no further file."""
    what = "is used up: every batch that is fetched ahead needs one"
    fix = "ulimit -n 4096, or a lower --workers; a data set must close the files that it opens"
    return LoaderError(title, [Problem("the limit of open files", what, fix)])


def _end_with(parent: int) -> None:
    """End this process when its parent has ended, whatever else it is doing."""
    while os.getppid() == parent:
        sleep(0.5)
    os._exit(0)


def _fork() -> int:
    """`os.fork`, without the warning that Python 3.12 gives where other threads run.

    Those are PyTorch's and wait for work; of them the child has none, and loads on its own thread.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        return os.fork()


def _flush() -> None:
    """Write what is printed: a fork would print it twice, `_exit` not at all."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):
            stream.flush()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Start processes with SIGINT, SIGTERM, SIGUSR1 and SIGHUP blocked.

    Ctrl-C and schedulers signal the whole process group. A loader that blocks these signals serves
    until the run has stopped.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
