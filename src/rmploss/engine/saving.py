"""Save the state of a run when it is due, and stop after a signal with a checkpoint written."""

from collections.abc import Callable
from dataclasses import dataclass

from rmploss.engine.run import RunFolder
from rmploss.engine.save_clock import Request, SaveClock
from rmploss.engine.signals import Stop
from rmploss.engine.training_state import TrainingState
from rmploss.errors import InterruptedRunError


@dataclass
class Saving:
    """The checkpoints of one run.

    folder: of the run.
    state: what is saved.
    clock: when a checkpoint is due.
    stop: set by a signal.
    check: raises for a state that must not be saved.
    batches: the number of batches of an epoch.
    flags: the flags of the command that resumes the run.
    """

    folder: RunFolder
    state: TrainingState
    clock: SaveClock
    stop: Stop
    check: Callable[[], object]
    batches: int
    flags: str = ""

    def save(self) -> None:
        """Write a checkpoint. All ranks must call this."""
        self.state.save(self.folder)
        self.clock.restart()

    def save_or_stop(self, saved: bool = False) -> None:
        """Save if the clock of rank 0 says so; save and stop after a signal to any rank.

        saved: the checkpoint of this step is written.

        Raises `InterruptedRunError` after a signal.
        """
        world = self.state.world
        due = world.is_main and not saved and self.clock.due()
        request = Request.STOP if self.stop.requested else Request.SAVE if due else Request.NOTHING
        request = world.highest(request)
        if request == Request.NOTHING:
            return
        if not saved:
            self.check()
            self.save()
        if request == Request.STOP:
            self._stop()

    def _stop(self) -> None:
        at = self.state.counters
        if self.state.world.is_main:
            self.folder.log_event("interrupted", step=at.step)
        raise InterruptedRunError(
            f"stopped after step {at.step} ({at.words(self.batches)}), checkpoint written",
            f"{self.folder.resume_command}{self.flags}",
        )
