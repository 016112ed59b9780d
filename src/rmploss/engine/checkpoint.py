"""Checkpoints: tensors in `state.safetensors`, the rest in `manifest.json`; no pickle either way.

    ckpt/step-00001234/state.safetensors    "model/<name>", "optimizer/<name>/<key>", "extra/<name>"
    ckpt/step-00001234/manifest.json        counters, hashes, versions, hyperparameters

All randomness is derived from a recipe's seed and `Counters`, so no generator is saved.
There is no "latest" pointer: the latest checkpoint is the one of the highest step whose manifest
verifies; no clock is read. A step saved twice gets "-2"; a checkpoint is never overwritten.
"""

import hashlib
import json
import math
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from rmploss import store
from rmploss.engine.differences import recipe_problems
from rmploss.engine.files import read_regular
from rmploss.engine.optimizer_state import OptimizerState
from rmploss.errors import CheckpointError, Problem, StoreError

FORMAT = 1
STATE = "state.safetensors"
MANIFEST = "manifest.json"


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


@dataclass(frozen=True)
class Loaded:
    """A checkpoint whose every byte was verified, and the newer ones that were rejected.

    path: its folder.
    counters: how far training had come.
    model_state, optimizer_state, scaler_state: the saved states; None: no scaler.
    extra: the other tensors that `save` got.
    best: the best test accuracy so far in percent; None before the first test.
    versions: of Python and packages in the process that saved it.
    threads: the number of its threads.
    metrics: the hash of metrics.jsonl that `save` got; None: of a version that saved none.
    rejected: (name, reason) of each newer checkpoint, newest first. The owner of the run's lock
        renames damaged ones to `<name>.corrupt`.
    """

    path: Path
    counters: Counters
    model_state: dict[str, Tensor]
    optimizer_state: OptimizerState
    extra: dict[str, Tensor]
    scaler_state: dict[str, float] | None
    best: float | None
    versions: dict[str, str]
    threads: int
    metrics: str | None
    rejected: list[tuple[str, str]]


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
        path = _next_name(folder, counters.step)  # After a failed sync the old name may be there.
        store.write_folder(path, files)
        return path

    path = store.try_twice(write)
    older = [old for old in saved(folder) if _order(old) <= _order(path)]
    for old in older[keep:]:
        if _order(old)[0] not in spare:
            _remove(old)
    return path


def saved(folder: Path) -> list[Path]:
    """The checkpoint folders of a run folder, newest first, not yet verified."""
    found = (folder / "ckpt").glob("step-*")
    return sorted((path for path in found if _NAME.fullmatch(path.name)), key=_order)[::-1]


def load_latest(folder: Path, *, recipe_hash: str, owner: bool = False) -> Loaded:
    """The newest checkpoint of a run folder that verifies to the last bit and is of this recipe.

    folder: the run folder.
    recipe_hash: SHA-256 of the run's recipe.
    owner: this process owns the run's lock, and renames damaged checkpoints to `*.corrupt`; readers
        and other ranks rename nothing.

    `Loaded.rejected` reports the damaged ones. Raises `CheckpointError` with a reason for each if
    none is left: training does not silently begin again at step 0.
    """
    rejected: list[tuple[str, str]] = []
    theirs: dict[str, Any] | None = None
    for path in saved(folder):
        try:
            return _load(path, recipe_hash, rejected)
        except DamagedError as damage:
            rejected.append((path.name, str(damage)))
            if owner:
                _set_aside(path)
        except (_ForeignError, OSError) as reason:
            rejected.append((path.name, _words(reason)))
            theirs = theirs or getattr(reason, "recipe", None)
    raise _none_left(folder, rejected, theirs)


def load_step(folder: Path, step: int, *, recipe_hash: str) -> Loaded:
    """Load and verify the checkpoint of one step; `CheckpointError` with the reason."""
    found = [path for path in saved(folder) if _order(path)[0] == step]
    if not found:
        steps = ", ".join(str(_order(path)[0]) for path in saved(folder)) or "none"
        raise CheckpointError(f"no checkpoint of step {step} in {folder} (there are: {steps})")
    return load_folder(found[0], recipe_hash=recipe_hash)


def load_folder(path: Path, *, recipe_hash: str | None) -> Loaded:
    """Load and verify one checkpoint folder; `CheckpointError` with the reason.

    recipe_hash: of the run's recipe; None: unknown, any is accepted.
    """
    try:
        return _load(path, recipe_hash, [])
    except (DamagedError, _ForeignError, OSError) as reason:
        raise CheckpointError(f"{path} {_words(reason)}") from None


def saved_recipe(folder: Path, recipe_hash: str) -> dict[str, Any] | None:
    """The recipe of that hash as a sound checkpoint of a run folder repeats it; None: none does."""
    for path in saved(folder):
        try:
            manifest = unseal(read_regular(path / MANIFEST))
        except (DamagedError, OSError):
            continue
        recipe = manifest.get("recipe")
        if isinstance(recipe, dict) and manifest.get("recipe_hash") == recipe_hash:
            return recipe
    return None


def set_aside(folder: Path, newer_than: int) -> list[str]:
    """The names of checkpoints of later steps that were once found damaged (`*.corrupt`)."""
    found = ((path.name, _NAME.match(path.name)) for path in (folder / "ckpt").glob("*.corrupt*"))
    return sorted(name for name, match in found if match and int(match[1]) > newer_than)


def step_of(name: str) -> int | None:
    """The step in the name of a checkpoint folder, or None."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else None


class DamagedError(Exception):
    """The bytes on the disk differ from those that were written, or something is missing."""


class _ForeignError(Exception):
    """A sound checkpoint of another run or version; `recipe`: that of the other run, if known."""

    def __init__(self, reason: str, recipe: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.recipe = recipe


_NAME = re.compile(r"step-(\d{8,})(?:-(\d+))?")


def _order(path: Path) -> tuple[int, int]:
    """The sort key of a checkpoint: its step, then the number of its save of that step."""
    match = _NAME.fullmatch(path.name)
    assert match
    return int(match[1]), int(match[2] or 1)


def _next_name(folder: Path, step: int) -> Path:
    """The next free name of a step, numbered after its newest checkpoint, whatever was removed."""
    saves = [n for s, n in map(_order, saved(folder)) if s == step]
    suffix = f"-{max(saves) + 1}" if saves else ""
    return folder / "ckpt" / f"step-{step:08d}{suffix}"


def _remove(old: Path) -> None:
    try:
        store.remove_tree(old)
    except StoreError as error:
        if not store.can_pass(error):  # Else the next save removes it.
            raise


def _set_aside(path: Path) -> None:
    tails = (".corrupt", *(f".corrupt-{n}" for n in range(2, 100)))
    names = (path.with_name(path.name + tail) for tail in tails)
    free = next(name for name in names if not name.exists())
    with suppress(StoreError):  # On a read-only disk it keeps its name; it is rejected either way.
        store.rename(path, free)


def _own(tensor: Tensor) -> Tensor:
    """A copy on the CPU with memory of its own, as safetensors demands."""
    return tensor.detach().to("cpu", copy=True).contiguous()


def seal(manifest: Mapping[str, Any]) -> bytes:
    """The manifest as JSON with the SHA-256 of all its other fields, which detects any change."""
    unsealed = json.dumps(manifest, indent=1, allow_nan=False)
    digest = hashlib.sha256(unsealed.encode()).hexdigest()
    return (json.dumps({**manifest, "sha256": digest}, indent=1, allow_nan=False) + "\n").encode()


def unseal(data: bytes) -> dict[str, Any]:
    """The manifest of `seal`, without its SHA-256; `DamagedError` if a byte of it differs."""
    try:
        manifest = json.loads(data)
        del manifest["sha256"]
        if seal(manifest) == data:
            return manifest
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise DamagedError(f"{MANIFEST} is damaged: its SHA-256 differs")


def _load(path: Path, recipe_hash: str | None, rejected: list[tuple[str, str]]) -> Loaded:
    names = {file.name for file in path.iterdir() if file.is_file()}
    for name in (MANIFEST, STATE):
        if name not in names:
            raise DamagedError(f"{name} is missing")
    manifest = unseal(read_regular(path / MANIFEST))
    try:
        return _read(path, manifest, recipe_hash, rejected)
    except _MALFORMED as error:
        # Its hash is right: no disk did this, but a program that seals what it has changed.
        raise DamagedError(f"holds no checkpoint of this format: {error!r}") from None


_MALFORMED = (
    KeyError, TypeError, ValueError, AttributeError, OverflowError, RuntimeError,
    safetensors.SafetensorError,
)  # fmt: skip


def _read(
    path: Path, manifest: dict[str, Any], recipe_hash: str | None, rejected: list[tuple[str, str]]
) -> Loaded:
    """The checkpoint of a manifest whose own hash is right."""
    if manifest["format"] != FORMAT:
        version = manifest["versions"].get("rmploss", "another version")
        raise _ForeignError(
            f"has format {manifest['format']}, of rmploss {version}; this reads {FORMAT}"
        )
    if recipe_hash is not None and manifest["recipe_hash"] != recipe_hash:
        theirs = manifest.get("recipe")
        raise _ForeignError(
            f"is of recipe {manifest['recipe_hash'][:12]}, not {recipe_hash[:12]}",
            theirs if isinstance(theirs, dict) else None,
        )
    if manifest["progress"]["step"] != _order(path)[0]:
        raise DamagedError(f"holds step {manifest['progress']['step']}, not the one in its name")
    tensors = safetensors.torch.load(_verified(path / STATE, manifest["files"][STATE]))

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    optimizer = manifest["optimizer"]
    return Loaded(
        path=path,
        counters=Counters(**manifest["progress"]),
        model_state=part("model/"),
        optimizer_state=OptimizerState(
            part("optimizer/"), optimizer["numbers"], tuple(optimizer["groups"])
        ),
        extra=part("extra/"),
        scaler_state=manifest["scaler"],
        best=manifest["best"],
        versions=manifest["versions"],
        threads=manifest["threads"],
        metrics=manifest.get("metrics"),
        rejected=rejected,
    )


def _verified(path: Path, expected: Mapping[str, Any]) -> bytes:
    """The content of a file; `DamagedError` unless its length and hash match the manifest."""
    length = path.stat().st_size
    if length != expected["bytes"]:
        raise DamagedError(f"{path.name} has {length:,} bytes, not {expected['bytes']:,}")
    data = read_regular(path)
    if hashlib.sha256(data).hexdigest() != expected["sha256"]:
        raise DamagedError(f"{path.name} is damaged: its SHA-256 differs")
    return data


def _words(reason: Exception) -> str:
    """The reason of a rejection; of an OSError without the path, which is told anyway."""
    return (isinstance(reason, OSError) and reason.strerror) or str(reason)


def _edits(folder: Path, theirs: dict[str, Any] | None) -> list[Problem]:
    """The fields in which the recipe of a run folder differs from that of its checkpoints."""
    try:
        ours = json.loads(read_regular(folder / "recipe.json"))["recipe"]
        return recipe_problems("recipe.json", theirs, ours) if theirs else []
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _none_left(
    folder: Path, rejected: list[tuple[str, str]], theirs: dict[str, Any] | None = None
) -> CheckpointError:
    now = {f"{name}.corrupt" for name, _ in rejected}
    before = [p.name for p in sorted((folder / "ckpt").glob("*.corrupt*")) if p.name not in now]
    problems = [
        *(Problem(name, reason) for name, reason in rejected),
        *_edits(folder, theirs),
        *(Problem(name, "was found damaged earlier") for name in before),
    ]
    if not problems:
        return CheckpointError(f"no checkpoint in {folder}: the run ended before it saved one")
    return CheckpointError(
        f"no checkpoint of {folder} is intact; its recipe and metrics can still be read",
        problems,
    )
