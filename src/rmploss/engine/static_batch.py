"""A batch in tensors that stay in place, so that a captured function finds every batch there."""

from collections.abc import Callable

import torch
from torch import Tensor

from rmploss.errors import DataError, Problem


class StaticBatch:
    """Two tensors on a device: images and labels, or what a batch is made of.

    device: of the tensors, which are allocated for the first batch.
    make: makes images and labels of the two tensors; None: they are images and labels.
    """

    def __init__(
        self,
        device: torch.device,
        make: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
    ) -> None:
        self.device, self.make = device, make
        self._held: tuple[Tensor, Tensor] | None = None

    def fits(self, *batch: Tensor) -> bool:
        """True if a batch has the shapes and types of the first; also before the first."""
        pairs = zip(self._held or (), batch, strict=False)
        return all(ours.shape == new.shape and ours.dtype == new.dtype for ours, new in pairs)

    def fill(self, first: Tensor, second: Tensor) -> None:
        """Copy a batch that fits.

        first: images `[B, C, H, W]` or `[T, B, C, H, W]`, or indices `[B]`.
        second: labels `[B]`, or the epoch `[]`.

        Raises `DataError` for a batch that does not: a copy would stretch dimensions of one.
        """
        if self._held is None:
            self._held = (
                torch.empty_like(first, device=self.device),
                torch.empty_like(second, device=self.device),
            )
        if not self.fits(first, second):
            what = f"the first batch was {_words(*self._held)}"
            problem = Problem(f"a batch of {_words(first, second)}", what, "one size for all")
            raise DataError("the batches of a run differ in shape or type", [problem])
        for ours, new in zip(self._held, (first, second), strict=True):
            ours.copy_(new, non_blocking=True)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The images and labels of the last `fill`."""
        assert self._held is not None, "no batch was filled in"
        return self.make(*self._held) if self.make else self._held


def _words(*batch: Tensor) -> str:
    return " and ".join(f"{list(x.shape)} {x.dtype}" for x in batch)
