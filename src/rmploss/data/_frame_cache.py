"""Frames that took minutes to make, kept in one file that proves itself.

A safetensors file with one tensor, uint8 `[N, bytes of a sample]`, and as metadata the description
of how it was made and the SHA-256 of the tensor. A file that does not agree with either is made
anew: so a damaged cache, or one of other data, costs time and nothing else.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from rmploss import store
from rmploss.data._base import Progress


def cached(
    folder: Path,
    description: Mapping[str, object],
    n: int,
    make: Callable[[int], np.ndarray],
    progress: Progress | None = None,
) -> np.ndarray:
    """The n samples that `make` gives, uint8 `[n, bytes]`, from the cache if it holds them.

    description: all that the samples depend on. Several processes may do this at once: each writes
    the same file whole.
    """
    name = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"frames-{name}.safetensors"
    samples = _read(path, description)
    if samples is None:
        samples = _made(n, make, progress)
        store.make_folder(folder)
        store.write_bytes(path, save({"frames": samples}, _metadata(description, samples)))
    return samples


def _read(path: Path, description: Mapping[str, object]) -> np.ndarray | None:
    """The samples of a cache file that is whole and answers to the description; None else."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata, samples = dict(file.metadata() or {}), file.get_tensor("frames")
    except (OSError, safetensors.SafetensorError):
        return None
    return samples if metadata == _metadata(description, samples) else None


def _made(n: int, make: Callable[[int], np.ndarray], progress: Progress | None) -> np.ndarray:
    samples = []
    for index in range(n):
        samples.append(make(index))
        if progress is not None:
            progress(index + 1, n)
    return np.stack(samples)


def _metadata(description: Mapping[str, object], samples: np.ndarray) -> dict[str, str]:
    """What the file says of itself; one entry, since safetensors keeps no order of several."""
    digest = hashlib.sha256(repr(samples.shape).encode())
    digest.update(samples.tobytes())
    return {"made": json.dumps({**description, "sha256": digest.hexdigest()}, sort_keys=True)}
