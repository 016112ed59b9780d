"""Stop on a signal: the first sets a flag that is read between steps, the second kills.

with Stop() as stop:
    for batch in batches:
        ...
        if world.any_rank(stop.requested):     # all ranks stop after the same step
            ...                             # write a checkpoint, leave with exit code 75
"""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self

# Slurm sends SIGUSR1 before a time limit, a closed terminal SIGHUP.
_NAMES = ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP")


class Stop:
    """Inside the block, SIGTERM, SIGINT, SIGUSR1 and SIGHUP request a stop instead of killing.

    The handler only sets a flag: no input or output, no collective. A second signal kills the
    process at once, even in a native call; shells report 128 + its number. Signals that arrive
    together, as those of a closed terminal do, count as one. A signal that was ignored (SIGHUP
    under nohup) remains ignored. Outside the main thread, where Python installs no
    handlers, the block changes nothing.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        """True after a signal, which is `signal`."""
        return self.signal is not None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for name in _NAMES:
                number = getattr(signal, name, None)  # Windows has only the first two.
                # None: not installed from Python, so it could not be restored.
                if number and signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        while self._previous:  # Popped one by one: a signal may arrive in between.
            number, handler = self._previous.popitem()
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.signal is not None:
            return  # It arrived together with the first.
        self.signal = signal.Signals(number)
        # Python calls this for one signal after the other, and complains of a signal whose handler
        # is the default by then. Raised again, the first lets it call the others here and now.
        signal.raise_signal(number)
        for each in self._previous:
            signal.signal(each, signal.SIG_DFL)
