"""Checkpoints: tensors in `state.safetensors`, the rest in `manifest.json`; no pickle either way.

    ckpt/step-00001234/state.safetensors    "model/<name>", "optimizer/<name>/<key>", "extra/<name>"
    ckpt/step-00001234/manifest.json        counters, hashes, versions, hyperparameters

All randomness is derived from a recipe's seed and `Counters`, so no generator is saved.
There is no "latest" pointer: the latest checkpoint is the one of the highest step whose manifest
verifies; no clock is read. A step saved twice gets "-2"; a checkpoint is never overwritten.
"""

from rmploss.engine.checkpoint.counters import Counters
from rmploss.engine.checkpoint.names import FORMAT, MANIFEST, STATE, saved, set_aside, step_of
from rmploss.engine.checkpoint.read import (
    Loaded,
    load_folder,
    load_latest,
    load_step,
    saved_recipe,
)
from rmploss.engine.checkpoint.sealed import DamagedError, seal, unseal
from rmploss.engine.checkpoint.write import save

__all__ = [
    "FORMAT",
    "MANIFEST",
    "STATE",
    "Counters",
    "DamagedError",
    "Loaded",
    "load_folder",
    "load_latest",
    "load_step",
    "save",
    "saved",
    "saved_recipe",
    "seal",
    "set_aside",
    "step_of",
    "unseal",
]
