"""Read checkpoints: every byte is verified, and a rejected one has its reason."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from rmploss.engine.checkpoint.counters import Counters
from rmploss.engine.checkpoint.names import FORMAT, MANIFEST, STATE, mark_damaged, order, saved
from rmploss.engine.checkpoint.sealed import DamagedError, unseal
from rmploss.engine.differences import recipe_problems
from rmploss.engine.files import read_regular
from rmploss.engine.optimizer_state import OptimizerState
from rmploss.errors import CheckpointError, Problem


@dataclass(frozen=True)
class Loaded:
    """A checkpoint whose every byte was verified, and the newer ones that were rejected.

    path: its folder.
    sha256: of its tensors.
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
    sha256: str
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
                mark_damaged(path)
        except (_ForeignError, OSError) as reason:
            rejected.append((path.name, _words(reason)))
            theirs = theirs or getattr(reason, "recipe", None)
    raise _none_left(folder, rejected, theirs)


def load_step(folder: Path, step: int, *, recipe_hash: str) -> Loaded:
    """Load and verify the checkpoint of one step; `CheckpointError` with the reason."""
    found = [path for path in saved(folder) if order(path)[0] == step]
    if not found:
        steps = ", ".join(str(order(path)[0]) for path in saved(folder)) or "none"
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


class _ForeignError(Exception):
    """A sound checkpoint of another run or version; `recipe`: that of the other run, if known."""

    def __init__(self, reason: str, recipe: dict[str, Any] | None = None) -> None:
        super().__init__(reason)
        self.recipe = recipe


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
    if manifest["progress"]["step"] != order(path)[0]:
        raise DamagedError(f"holds step {manifest['progress']['step']}, not the one in its name")
    tensors = safetensors.torch.load(_verified(path / STATE, manifest["files"][STATE]))

    def part(prefix: str) -> dict[str, Tensor]:
        return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}

    optimizer = manifest["optimizer"]
    return Loaded(
        path=path,
        sha256=manifest["files"][STATE]["sha256"],
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
    """The reason of a rejection; of an OSError without the path, which the message names."""
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
