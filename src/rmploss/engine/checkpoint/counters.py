"""The position in training that a checkpoint holds: epochs, steps and batches done."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Counters:
    """How far training has come; "progress" in the manifest.

    epoch: completed epochs.
    step: completed optimizer steps of all epochs.
    batch: completed batches of the current epoch.
    """

    epoch: int
    step: int
    batch: int

    def progress(self, epochs: int) -> float:
        """n / N of the epoch that is under way or was just completed, for `lifecycle.evolve`.

        epochs: N.
        """
        return (self.epoch + (self.batch > 0)) / epochs

    def words(self, batches: int) -> str:
        """What is done, for people: "epoch 2, batch 17 of 78", or "epoch 1" at its end.

        batches: the number of batches of an epoch.
        """
        if self.batch or not self.epoch:
            return f"epoch {self.epoch + 1}, batch {self.batch} of {batches}"
        return f"epoch {self.epoch}"
