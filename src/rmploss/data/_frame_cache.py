"""A cache on disk for frames that take minutes to compute, verified by a checksum.

A safetensors file holds one tensor, uint8 `[N, bytes of a sample]`; its metadata holds the options
and sources of the frames and the SHA-256 of the tensor. A file in which either differs is computed
again: a damaged cache, or one of other data, costs time and nothing else.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import safetensors
from safetensors.numpy import save

from rmploss import store
from rmploss.data._base import ProgressCallback


def load_or_make(
    folder: Path,
    description: Mapping[str, object],
    n: int,
    make: Callable[[int], np.ndarray],
    progress: ProgressCallback | None = None,
) -> np.ndarray:
    """Samples uint8 `[n, bytes]`, from the cache if it holds them, else computed and cached.

    folder: of the cache.
    description: everything that the samples depend on.
    make: index -> sample, uint8 `[bytes]`.
    progress: called after every computed sample.
    Several processes may call this at once: each writes the same complete file.
    """
    name = hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()[:16]
    path = folder / f"frames-{name}.safetensors"
    samples = _read(path, description)
    if samples is None:
        samples = _make_all(n, make, progress)
        store.make_folder(folder)
        store.write_bytes(path, save({"frames": samples}, _metadata(description, samples)))
    return samples


def _read(path: Path, description: Mapping[str, object]) -> np.ndarray | None:
    """The samples of an intact cache file of this description; None if there is none."""
    try:
        with safetensors.safe_open(path, framework="numpy") as file:
            metadata, samples = dict(file.metadata() or {}), file.get_tensor("frames")
    except (OSError, safetensors.SafetensorError, TypeError, AttributeError, KeyError):
        return None  # The last three: a type of numbers that NumPy lacks.
    intact = samples.dtype == np.uint8 and metadata == _metadata(description, samples)
    return samples if intact else None


def _make_all(
    n: int, make: Callable[[int], np.ndarray], progress: ProgressCallback | None
) -> np.ndarray:
    samples = []
    for index in range(n):
        samples.append(make(index))
        if progress is not None:
            progress(index + 1, n)
    return np.stack(samples)


def _metadata(description: Mapping[str, object], samples: np.ndarray) -> dict[str, str]:
    """Description and checksum in one entry: safetensors does not keep the order of several."""
    digest = hashlib.sha256(repr(samples.shape).encode())
    digest.update(samples.tobytes())
    return {"made": json.dumps({**description, "sha256": digest.hexdigest()}, sort_keys=True)}
