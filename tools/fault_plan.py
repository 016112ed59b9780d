"""The faults of one execution of a run: drawn at random, several at once."""

import errno
import random
import signal
from dataclasses import dataclass


@dataclass(frozen=True)
class Setting:
    """How a run is executed.

    ranks: the number of its processes, 1 to 3.
    workers: the number of loader processes of each.
    every_step: a checkpoint is saved after every step; False: at the ends of epochs.
    restarted: the ranks meet at a store that outlasts them, and are stopped when one ends, as under
        `torchrun --max-restarts`; False: rank 0 serves the store, and the others notice.
    """

    ranks: int
    workers: int
    every_step: bool
    restarted: bool = False


@dataclass(frozen=True)
class Fault:
    """One fault.

    kind: a key of `ALLOWED`.
    rank: the process that it strikes.
    at: the change of the disk, the batch, or the time in seconds before which it strikes.
    number: of the signal or of the error, if its kind leaves it open.
    """

    kind: str
    rank: int
    at: float
    number: int = 0


KILL_CHANGE = "SIGKILL before a change of the disk"
KILL_TIME = "SIGKILL at any time"
KILL_RANK = "SIGKILL of one of several ranks"
KILL_LOADER = "SIGKILL of a loader process"
SIGNAL = "SIGTERM, SIGINT, SIGUSR1 or SIGHUP"
FULL_ONCE = "disk full (ENOSPC), once"
FULL = "disk full (ENOSPC), from then on"
FAILING_ONCE = "a write or an fsync fails (EIO), once"
FAILING = "writes and fsyncs fail (EIO), from then on"

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)
_KILLED = {-signal.SIGKILL}
_RANK_LOST = 11
_REFUSED = {5}

ALLOWED: dict[str, set[int]] = {
    KILL_CHANGE: _KILLED | {_RANK_LOST},
    KILL_TIME: _KILLED | {_RANK_LOST},
    KILL_RANK: _KILLED | {_RANK_LOST},
    KILL_LOADER: set(),  # Another process takes its place.
    # Before training begins, and after its end, a signal has its usual effect.
    SIGNAL: {75, 130, _RANK_LOST, *(-number for number in _SIGNALS)},
    FULL_ONCE: _REFUSED | {_RANK_LOST},
    FULL: _REFUSED | {_RANK_LOST},
    FAILING_ONCE: _REFUSED | {_RANK_LOST},
    FAILING: _REFUSED | {_RANK_LOST},
}
"""The exit codes, beside 0, that a fault explains: of the struck rank, and of the other one."""


def draw_setting(rng: random.Random) -> Setting:
    """A fifth of the runs has two ranks or three, half of them restarted as `torchrun` does.

    A third has a loader process, a third saves every step.
    """
    ranks = rng.choices((1, 2, 3), (16, 3, 1))[0]
    return Setting(
        ranks=ranks,
        workers=int(rng.random() < 1 / 3),
        every_step=rng.random() < 1 / 3,
        restarted=ranks > 1 and rng.random() < 1 / 2,
    )


def draw_faults(rng: random.Random, setting: Setting, changes: int, seconds: float) -> list[Fault]:
    """One to four faults; none may strike if the execution ends before.

    changes: the number of changes of the disk of an unbroken run.
    seconds: its duration.
    """
    kinds = [KILL_CHANGE, KILL_TIME, SIGNAL, FULL_ONCE, FULL, FAILING_ONCE, FAILING]
    kinds += [KILL_LOADER] * 3 * setting.workers
    kinds += [KILL_RANK] * 2 * (setting.ranks > 1)
    chosen = {rng.choice(kinds) for _ in range(rng.randint(1, 4))}
    return [_draw(rng, kind, setting, changes, seconds) for kind in sorted(chosen)]


def _draw(rng: random.Random, kind: str, setting: Setting, changes: int, seconds: float) -> Fault:
    rank = rng.randrange(setting.ranks)
    match kind:
        case _ if kind == KILL_TIME:
            return Fault(kind, rank, rng.uniform(0, seconds))
        case _ if kind in (KILL_RANK, KILL_LOADER):
            return Fault(kind, rank, rng.randint(1, BATCHES))
        case _ if kind == SIGNAL:
            return Fault(kind, rank, rng.uniform(0, seconds), rng.choice(_SIGNALS))
    # Only rank 0 changes the disk.
    number = {FULL_ONCE: errno.ENOSPC, FULL: errno.ENOSPC}.get(kind, errno.EIO)
    return Fault(kind, 0, rng.randint(1, changes), number)


BATCHES = 9
"""The training batches of an unbroken run."""
