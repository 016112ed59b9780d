"""What identifies a split: number of samples, their labels, the content of a few of them."""

import hashlib
from typing import Any, Protocol, runtime_checkable

import torch

from rmploss.data._base import Samples
from rmploss.data._loading import Subset
from rmploss.errors import UserError

SAMPLED = 16
"""The number of samples whose content is hashed: it takes milliseconds, files included."""
MOST_CLASSES = 100
"""Up to so many classes the samples of each are counted; the hash of the labels tells the rest."""


@runtime_checkable
class HasContent(Protocol):
    """Samples that give what they store of one, before any augmentation."""

    def content(self, index: int) -> bytes:
        """The stored bytes of a sample: pixels, or a file."""
        ...


def fingerprint(samples: Samples) -> dict[str, Any]:
    """The fingerprint of a split, as JSON data; the seed and the epoch do not change it.

    samples: its number; labels: SHA-256 of all labels in order; classes: label -> number of
    samples; content: SHA-256 of `SAMPLED` samples, evenly spread, or None if they give no content.
    """
    labels = torch.as_tensor(samples.labels).detach().cpu().to(torch.int64).contiguous()
    found, counts = labels.unique(return_counts=True)
    classes = {str(k): n for k, n in zip(found.tolist(), counts.tolist(), strict=True)}
    return {
        "samples": len(samples),
        "labels": hashlib.sha256(labels.numpy().tobytes()).hexdigest(),
        "classes": classes if len(classes) <= MOST_CLASSES else None,
        "content": _content(samples),
    }


def _content(samples: Samples) -> str | None:
    count, total = len(samples), hashlib.sha256()
    for index in sorted({count * i // SAMPLED for i in range(SAMPLED)}) if count else ():
        stored = _stored(samples, index)
        if stored is None:
            return None
        total.update(hashlib.sha256(stored).digest())
    return total.hexdigest()


def _stored(samples: Samples, index: int) -> bytes | None:
    if isinstance(samples, Subset):
        return _stored(samples.samples, int(samples.indices[index]))
    try:
        return samples.content(index) if isinstance(samples, HasContent) else None
    except (OSError, UserError):
        return None  # training names the sample, with what is wrong
