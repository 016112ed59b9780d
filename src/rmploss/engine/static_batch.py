"""A batch in tensors that stay in place, so that a captured function finds every batch there."""

import torch
from torch import Tensor


class StaticBatch:
    """Images and labels on a device.

    device: of the tensors, which are allocated for the first batch.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._batch: tuple[Tensor, Tensor] | None = None

    def fits(self, images: Tensor, labels: Tensor) -> bool:
        """True if a batch has the shapes and types of the first; also before the first."""
        pairs = zip(self._batch or (), (images, labels), strict=False)
        return all(ours.shape == new.shape and ours.dtype == new.dtype for ours, new in pairs)

    def fill(self, images: Tensor, labels: Tensor) -> None:
        """Copy a batch that fits.

        images: `[B, C, H, W]` or `[T, B, C, H, W]`.
        labels: `[B]`.
        """
        if self._batch is None:
            self._batch = (
                torch.empty_like(images, device=self.device),
                torch.empty_like(labels, device=self.device),
            )
        for ours, new in zip(self._batch, (images, labels), strict=True):
            ours.copy_(new, non_blocking=True)

    def __call__(self) -> tuple[Tensor, Tensor]:
        """The images and labels of the last `fill`."""
        assert self._batch is not None, "no batch was filled in"
        return self._batch
