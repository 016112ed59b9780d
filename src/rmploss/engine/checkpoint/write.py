"""Write a checkpoint, then remove the older ones that are no longer needed."""

import hashlib
import math
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rmploss import store
from rmploss.engine.checkpoint.counters import Counters
from rmploss.engine.checkpoint.names import FORMAT, MANIFEST, STATE, next_name, order, saved
from rmploss.engine.checkpoint.sealed import seal
from rmploss.engine.optimizer_state import OptimizerState
from rmploss.errors import CheckpointError, StoreError


def save(
    folder: Path,
    *,
    model_state: Mapping[str, Tensor],
    optimizer_state: OptimizerState,
    counters: Counters,
    recipe_hash: str,
    versions: Mapping[str, str],
    recipe: Mapping[str, Any] | None = None,
    metrics: str | None = None,
    extra: Mapping[str, Tensor] | None = None,
    scaler_state: Mapping[str, float] | None = None,
    best: float | None = None,
    keep: int = 2,
    spare: Collection[int] = (),
) -> Path:
    """Write a checkpoint into a run folder, then remove all older ones but `keep - 1`.

    folder: the run folder.
    model_state, optimizer_state, scaler_state: the states to save.
    counters: how far training has come.
    recipe_hash, versions: of the run; loading compares them.
    recipe: the run's recipe as stored, so that a refused resume can say what differs.
    metrics: `RunFolder.metrics_hash` at this moment, so that later damage is noticed.
    extra: more tensors by name.
    best: the best test accuracy so far, in percent.
    keep: the number of checkpoints to keep, at least 2.
    spare: steps whose checkpoints are never removed, such as the best one's.

    Returns the checkpoint's folder; from then on it survives a loss of power. Raises `StoreError`
    if the disk refuses twice; the older checkpoints are then still there.
    """
    if keep < 2:
        raise CheckpointError(
            f"keep = {keep}: at least 2, so that one damaged checkpoint is no loss"
        )
    state = safetensors.torch.save(
        {
            **{f"model/{name}": _own(tensor) for name, tensor in model_state.items()},
            **{
                f"optimizer/{name}": _own(tensor)
                for name, tensor in optimizer_state.tensors.items()
            },
            **{f"extra/{name}": _own(tensor) for name, tensor in (extra or {}).items()},
        }
    )
    manifest = {
        "format": FORMAT,
        "progress": asdict(counters),
        "recipe_hash": recipe_hash,
        "recipe": None if recipe is None else dict(recipe),
        "metrics": metrics,
        "files": {STATE: {"bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}},
        "versions": dict(versions),
        "threads": torch.get_num_threads(),
        "optimizer": {"numbers": dict(optimizer_state.numbers), "groups": optimizer_state.groups},
        "scaler": None if scaler_state is None else dict(scaler_state),
        "best": best if best is not None and math.isfinite(best) else None,
    }
    files = {STATE: state, MANIFEST: seal(manifest)}

    def write() -> Path:
        store.make_folder(folder / "ckpt")
        path = next_name(folder, counters.step)  # After a failed sync the old name may be there.
        store.write_folder(path, files)
        return path

    path = store.try_twice(write)
    _retain(folder, path, keep, spare)
    return path


def _retain(folder: Path, newest: Path, keep: int, spare: Collection[int]) -> None:
    """Remove all checkpoints up to the newest one, but `keep` of them and those to spare."""
    older = [old for old in saved(folder) if order(old) <= order(newest)]
    for old in older[keep:]:
        if order(old)[0] not in spare:
            _remove(old)


def _remove(old: Path) -> None:
    try:
        store.remove_tree(old)
    except StoreError as error:
        if not store.can_pass(error):  # Else the next save removes it.
            raise


def _own(tensor: Tensor) -> Tensor:
    """A copy on the CPU with memory of its own, as safetensors demands."""
    return tensor.detach().to("cpu", copy=True).contiguous()
