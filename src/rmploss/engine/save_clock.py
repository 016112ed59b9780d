"""When the next checkpoint is due, and how the ranks agree to write one.

After each step every rank says what it wants, as one number of which all take the highest: the
reduction that has always been there for signals. So the clock of rank 0 costs no collective.
"""

import time
from enum import IntEnum


class Request(IntEnum):
    """What a rank wants after a step; the highest of all ranks is done."""

    NOTHING = 0
    SAVE = 1
    STOP = 2


class SaveClock:
    """Says when a checkpoint is due, by the time since the last one.

    seconds: between two checkpoints; 0: always due; infinite: never.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.restart()

    def restart(self) -> None:
        """A checkpoint was written."""
        self._since = time.monotonic()

    def due(self) -> bool:
        """True once the time has passed."""
        return time.monotonic() - self._since >= self.seconds
