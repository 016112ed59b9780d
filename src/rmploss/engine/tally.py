"""What steps leave on the device, and how the host reads it without stopping the device.

    sums      over the samples since `clear`: loss, weighted regularizer, correct answers, samples
    step      optimizer steps done
    first_bad the first step with a number that was not finite; -1: none

`first_bad` is sticky: after it is set, a step changes nothing until the host has read it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Terms:
    """Sums over samples, which add up over steps and ranks.

    sums: float64 `[4]`: loss, weighted regularizer, correct answers, samples.
    """

    sums: Tensor

    @staticmethod
    def zero() -> "Terms":
        """The sums of no samples."""
        return Terms(torch.zeros(4, dtype=torch.float64))

    def __add__(self, other: "Terms") -> "Terms":
        return Terms(self.sums + other.sums)

    def means(self) -> dict[str, float]:
        """The means per sample: loss terms (dimensionless) and accuracy in percent."""
        loss, regularizer, correct, count = self.sums.tolist()
        count = max(count, 1.0)
        return {
            "train_loss": loss / count,
            "train_regularizer": regularizer / count,
            "train_accuracy": 100 * correct / count,
        }


@dataclass(frozen=True)
class Reading:
    """The numbers of a tally at one moment, on the host.

    terms: the sums.
    first_bad: the number of completed steps before the first bad one; None: all were finite.
    """

    terms: Terms
    first_bad: int | None


class Tally:
    """Sums, step counter and first bad step of one rank.

    numbers: float64 `[6]` on the device: the four sums, step, first_bad. One copy reads them all.
    """

    def __init__(self, device: torch.device) -> None:
        self.numbers = torch.zeros(6, dtype=torch.float64, device=device)
        self.sums, self.step, self.first_bad = self.numbers[:4], self.numbers[4], self.numbers[5]
        self._nothing = torch.zeros_like(self.sums)
        self.start(0)

    def start(self, step: int, terms: Terms | None = None) -> None:
        """Begin after `step` steps with the sums of `terms`; None: with none."""
        self.step.fill_(step)
        self.first_bad.fill_(-1)
        self.clear()
        if terms is not None:
            self.sums.copy_(terms.sums)

    def clear(self) -> None:
        """Set the sums to zero."""
        self.sums.zero_()

    def stopped(self) -> Tensor:
        """True (a bool, `[]`, on the device) once a step was not finite."""
        return self.first_bad >= 0

    def add(self, terms: Terms, bad: Tensor) -> Tensor:
        """Count one step, and return `stopped` after it. Reads nothing.

        terms: of the step.
        bad: a bool `[]`: the step is not finite.
        """
        first = bad & (self.first_bad < 0)
        torch.where(first, self.step, self.first_bad, out=self.first_bad)
        self.step.add_(1)
        stopped = self.stopped()
        self.sums.add_(torch.where(stopped, self._nothing, terms.sums))
        return stopped

    def read(self) -> Reading:
        """The numbers now; waits for the device."""
        return _reading(self.numbers.cpu())


class Watch:
    """Reads a tally every so many steps; on a GPU by a copy that the host does not wait for.

    tally: is read.
    every: the number of steps between two readings.
    wait: read at once, at the same step on all ranks; False: a reading arrives some steps later.
    """

    def __init__(self, tally: Tally, *, every: int = 1, wait: bool = True) -> None:
        self.tally, self.every, self.wait = tally, every, wait
        self._steps = 0
        self._arriving: tuple[Tensor, torch.cuda.Event] | None = None

    def after_step(self) -> Reading | None:
        """The newest reading that has arrived since the last call; None: there is none."""
        self._steps += 1
        due = self._steps % self.every == 0 or self._steps == 1  # the loss of the start
        if self.wait:
            return self.tally.read() if due else None
        found = self._arrived()
        if due and self._arriving is None:
            self._arriving = self._send()
        return found

    def forget(self) -> None:
        """Drop the reading that is on its way: the tally was read and its sums begin anew."""
        self._arriving = None

    def _send(self) -> tuple[Tensor, torch.cuda.Event]:
        numbers = self.tally.numbers
        copied = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
        copied.copy_(numbers, non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(numbers.device))
        return copied, event

    def _arrived(self) -> Reading | None:
        if self._arriving is None or not self._arriving[1].query():
            return None
        copied, self._arriving = self._arriving[0], None
        return _reading(copied)


def _reading(numbers: Tensor) -> Reading:
    first = int(numbers[5])
    return Reading(Terms(numbers[:4].clone()), None if first < 0 else first)
