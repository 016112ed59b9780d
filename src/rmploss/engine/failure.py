"""Where training was when other code raised: a data set, a neuron, an objective."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from rmploss.data import batch_indices
from rmploss.engine.checkpoint import Counters
from rmploss.errors import DataError, LoaderError, StoreError, UserError
from rmploss.recipes import Recipe

SHOWN = 32
"""The number of samples that a message names; events.jsonl names all."""


@dataclass(frozen=True)
class Failure:
    """A place in training, or in the test of an epoch.

    recipe: its name.
    phase: "train" or "test".
    step: completed optimizer steps.
    epoch, batch: from 1.
    samples: of the batch, by their numbers in that split of the run; none: behind the last batch.
    """

    recipe: str
    phase: str
    step: int
    epoch: int
    batch: int
    samples: list[int]

    def words(self) -> str:
        """The place in words."""
        doing = "in training" if self.phase == "train" else "in the test of"
        place = f"{doing} {self.recipe}: epoch {self.epoch}, "
        if not self.samples:
            return f"{place}step {self.step}"
        listed = ", ".join(map(str, self.samples[:SHOWN]))
        more = f", ... {len(self.samples)} in all" if len(self.samples) > SHOWN else ""
        return f"{place}batch {self.batch}, step {self.step}, of the samples {listed}{more}"

    def fields(self) -> dict[str, Any]:
        """The fields of the event."""
        fields = {"phase": self.phase, "step": self.step, "epoch": self.epoch}
        return fields | self._batch() if self.samples else fields

    def _batch(self) -> dict[str, Any]:
        return {"batch": self.batch, "samples": self.samples}


def failed_in_training(recipe: Recipe, at: Counters, n: int) -> Failure:
    """The place of an exception in training.

    recipe: of the run.
    at: how far training has come.
    n: the number of training samples.
    """
    size, seed = recipe.batch_size, recipe.seed
    samples = batch_indices(n, batch_size=size, epoch=at.epoch, seed=seed, batch=at.batch)
    return Failure(recipe.name, "train", at.step, at.epoch + 1, at.batch + 1, samples)


def failed_in_test(recipe: Recipe, at: Counters, n: int, batch: int) -> Failure:
    """The place of an exception in a test.

    recipe, at: see `failed_in_training`.
    n: the number of test samples, which are tested in their order.
    batch: the number of batches before it.
    """
    first = batch * recipe.batch_size
    samples = [*range(n)[first : first + recipe.batch_size]]
    return Failure(recipe.name, "test", at.step, at.epoch + 1, batch + 1, samples)


@contextmanager
def failures_named(
    where: Callable[[], Failure], command: str, log: Callable[..., None]
) -> Iterator[None]:
    """Say in an exception of other code, such as a data set's, where training was.

    where: returns the place.
    command: what goes on with the run.
    log: writes an event.
    """
    try:
        yield
    except UserError as error:
        if isinstance(error, LoaderError | DataError):  # they say themselves where it was
            trace = "\n".join(getattr(error, "__notes__", ()))
            with suppress(StoreError):
                log("failed", error=str(error), trace=trace, **where().fields())
        raise
    except Exception as error:
        place, trace = where(), "".join(traceback.format_exception(error))
        error.add_note(f"{place.words()}\nwhen that is mended: {command}")
        with suppress(StoreError):
            log("failed", error=repr(error), trace=trace, **place.fields())
        raise
