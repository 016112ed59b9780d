"""Stop a run whose loss, gradient or output is not finite, and record where that began."""

from typing import NoReturn

from rmploss.data import Samples
from rmploss.engine.checkpoint import Counters
from rmploss.engine.examine import Finding, examine_step, examine_test
from rmploss.engine.fork import smaller_rate
from rmploss.engine.optimizers import rate_at
from rmploss.engine.run import RunFolder
from rmploss.engine.static_batch import StaticBatch
from rmploss.engine.step import TrainingStep
from rmploss.engine.tally import Reading, Terms
from rmploss.errors import NonFiniteError, Problem
from rmploss.models import SpikingNetwork


class FiniteCheck:
    """Raises `NonFiniteError`, on all ranks, for numbers of a run that are not finite.

    folder: of the run, which gets the crash record and the event.
    step: the training step.
    batch: the batch that it takes.
    samples: the training samples, of which the bad batch is made again.
    batches: the number of batches of an epoch.
    """

    def __init__(
        self,
        folder: RunFolder,
        step: TrainingStep,
        batch: StaticBatch,
        samples: Samples,
        batches: int,
    ) -> None:
        self.folder, self.step, self.batch = folder, step, batch
        self.samples, self.batches = samples, batches

    def require(self, reading: Reading) -> Terms:
        """The sums of a reading; `NonFiniteError` names the first bad step if there is one.

        Since that step nothing has changed: no parameter, no moment, no running statistic.
        """
        step = reading.first_bad
        if step is not None:
            # Sums are read before an epoch ends, so that the step is one of this epoch.
            now = self.step.state.counters
            at = Counters(now.epoch, step, now.batch - (now.step - step))
            what = "the loss or a gradient became NaN or infinite; the parameters were not updated"
            rate = rate_at(self.step.recipe, at, self.batches)
            found = examine_step(self.step, self.batch, self.samples, self.folder.path, at, rate)
            self._stop(step, f"epoch {at.epoch + 1}, batch {at.batch + 1}", what, found)
        return reading.terms

    def refuse_test(self, net: SpikingNetwork, samples: Samples) -> NoReturn:
        """Stop a run whose network outputs NaN or infinities in a test.

        net: with the trained weights, or with their average.
        samples: the test samples. The epoch's last update can cause this; no later step checks it.
        """
        state, world, recipe = self.step.state, self.step.world, self.step.recipe
        whose = "network" if net is state.net else "network of averaged weights"
        at, what = state.counters, f"the {whose} outputs NaN or infinities"
        found = examine_test(net, recipe, samples, self.folder.path, at, world)
        self._stop(at.step, f"test of epoch {at.epoch + 1}", what, found)

    def _stop(self, step: int, where: str, what: str, found: Finding) -> NoReturn:
        folder = self.folder
        if self.step.world.is_main:
            folder.log_event(
                "non-finite", step=step, where=where, first=found.words(), record=found.record
            )
        record = found.trouble or f"see {folder.path / (found.record or '')}"
        fix = smaller_rate(folder.path, self.step.recipe)
        raise NonFiniteError(
            f"{what} ({where})",
            [
                Problem("first found in", found.words(), record),
                Problem(str(folder.path), "its last checkpoint is intact", fix),
            ],
        )
