"""Compare the ranks of a run at the start, and name those that end or do not answer.

Both use the store at which the ranks met, not the connections between them: it answers while these
are broken, and before they are made.
"""

import json
import queue
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from time import monotonic, sleep
from typing import Any, TypeVar

import torch.distributed as dist
from torch.distributed.distributed_c10d import Store

from rmploss.errors import Problem, RankError, UserError

Result = TypeVar("Result")
GRACE_S = 3.0
"""The seconds in which a rank that notices a broken connection reports that it is alive."""
SAME_START = "start all ranks with one command and equal installations"
_BROKEN = re.compile(r"gloo|NCCL|Timed out|[Cc]onnection (closed|reset)|Broken pipe")


class Meeting:
    """The store at which the ranks of a run met.

    store: keys and values that all ranks see; one process serves it, rank 0 or `torchrun`.
    rank: this process.
    size: the number of ranks.
    timeout_s: how long to wait for the others, in seconds.
    """

    def __init__(self, store: Store, rank: int, size: int, timeout_s: float) -> None:
        self.store, self.rank, self.size, self.timeout_s = store, rank, size, timeout_s
        self._exchanged = 0

    def require_equal(self, facts: Mapping[str, Any], fix: str = SAME_START) -> None:
        """Raise `UserError` on all ranks if a fact differs between them; all ranks call it.

        facts: by name, values of JSON.
        fix: what to do about a difference.

        Raises `RankError`, which names them, if ranks do not come to compare.
        """
        self._exchanged += 1
        key = f"facts/{self._exchanged}"

        def post() -> list[int]:
            self.store.set(f"{key}/{self.rank}", json.dumps(dict(facts)))
            return self._missing(key, self.timeout_s)

        began = monotonic()
        missing = self._reached(post, self.timeout_s + GRACE_S)
        if missing:
            silent = monotonic() - began >= self.timeout_s
            raise self._lost(missing, silent=silent, step=None)
        ranks = [json.loads(self.store.get(f"{key}/{rank}")) for rank in range(self.size)]
        names = {name: None for found in ranks for name in found}
        problems = [
            Problem(
                f"{name} of rank {rank}",
                f"is {found.get(name)!r}, that of rank 0 is {ranks[0].get(name)!r}",
                fix,
            )
            for name in names
            for rank, found in enumerate(ranks)
            if found.get(name) != ranks[0].get(name)
        ]
        if problems:
            self.store.set(f"{key}/read/{self.rank}", "")
            if self.rank == 0:
                self._missing(f"{key}/read", GRACE_S)  # The store may end with this process.
            raise UserError("the ranks do not run the same", problems)

    def lost(self, error: Exception, step: int | None) -> RankError:
        """The error that names the ranks which caused a broken connection.

        error: of the collective that failed.
        step: the last step that all ranks completed; None: before training.
        """

        def roll_call() -> list[int]:
            if dist.is_initialized():
                dist.destroy_process_group()  # Ranks that wait for this one notice at once.
            self.store.set(f"here/{self.rank}", "")
            return self._missing("here", GRACE_S)

        missing = self._reached(roll_call, 2 * GRACE_S)
        return self._lost(missing, silent="imed out" in str(error), step=step)

    def _reached(self, missing: Callable[[], list[int]], seconds: float) -> list[int]:
        """The ranks that a call finds missing; rank 0, which serves the store, if it fails."""
        try:
            return within(seconds, missing)
        except (TimeoutError, dist.DistError):
            return [0]

    def _missing(self, key: str, seconds: float) -> list[int]:
        """The ranks that have not set `<key>/<rank>` within the seconds."""
        missing, deadline = list(range(self.size)), monotonic() + seconds
        while True:
            missing = [rank for rank in missing if not self.store.check([f"{key}/{rank}"])]
            if not missing or monotonic() > deadline:
                return missing
            sleep(0.02)

    def _lost(self, missing: list[int], *, silent: bool, step: int | None) -> RankError:
        what = f"has not answered for {self.timeout_s:g} s" if silent else "has ended"
        fix = "see its own messages; then go on with --resume"
        if silent:
            fix += ", or --timeout SECONDS if it is only slow"
        when = "before the first step" if step is None else f"last step {step}"
        names = " and ".join(f"rank {rank}" for rank in missing) or "the connection of the ranks"
        return RankError(
            f"rank {self.rank} cannot go on without {names} ({when})",
            [Problem(f"rank {rank}", what, fix) for rank in missing],
        )


@contextmanager
def name_lost_ranks(meeting: Meeting | None, step: Callable[[], int | None]) -> Iterator[None]:
    """Turn the error of a broken connection inside the block into a `RankError`.

    meeting: of the ranks; None: there is one process.
    step: returns the last step that all ranks completed.
    """
    try:
        yield
    except RuntimeError as error:
        if meeting is None or not is_broken_connection(error):
            raise
        raise meeting.lost(error, step()) from error


def is_broken_connection(error: Exception) -> bool:
    """True for the error of a collective whose other ranks ended or did not answer."""
    return isinstance(error, dist.DistError) or bool(_BROKEN.search(str(error)))


def within(seconds: float, action: Callable[[], Result]) -> Result:
    """The result of a call, or its error; `TimeoutError` if it takes longer.

    Calls of PyTorch that wait for a stopped process, or for one that is no rank, have no end of
    their own; such a call is left behind in its thread.
    """
    answer: queue.SimpleQueue[tuple[Result, None] | tuple[None, Exception]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answer.put((action(), None))
        except Exception as error:
            answer.put((None, error))

    Thread(target=work, daemon=True).start()
    try:
        result, error = answer.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    if error is not None:
        raise error
    return result  # pyright: ignore[reportReturnType]
