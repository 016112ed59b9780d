"""Verify run folders: files against hashes, lines against their form, the digest computed anew.

A finished run has a manifest, against which every byte is checked. An unfinished one, or one of a
version without manifests, is checked as far as hashes were stored: its recipe, its checkpoints, and
metrics.jsonl up to the newest checkpoint. The rest must at least be readable and consistent.
"""

import io
import json
import zipfile
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rmploss.engine import checkpoint, crash, manifest
from rmploss.engine.checkpoint import DamagedError
from rmploss.engine.files import read_regular, reason
from rmploss.engine.manifest import Damage, fix_of
from rmploss.engine.run import RunFolder, digest, is_event, is_metrics, parse_line
from rmploss.engine.run_summary import summarize
from rmploss.errors import CheckpointError, UserError

RESULT = "result.json"
RECORD = ("recipe.json", "metrics.jsonl", "events.jsonl", *manifest.COMPUTED)
"""The files from which reports and tables are made."""


@dataclass
class Verification:
    """What was found in one run folder.

    path: the run folder.
    state: "finished", "not finished", or "finished, without a manifest".
    damages: the files that are not what was written.
    verified: the files whose every byte was checked.
    unverified: the files without a stored hash.
    digest: of the run, computed anew; None if it cannot be.
    """

    path: Path
    state: str
    damages: list[Damage] = field(default_factory=list)
    verified: list[str] = field(default_factory=list)
    unverified: list[str] = field(default_factory=list)
    digest: str | None = None


def verify(path: Path) -> Verification:
    """Verify a run folder; `UserError` if it is none. Writes nothing."""
    if not is_run(path):
        RunFolder.open(path)  # raises, with the nearest name
    stored, found = _manifest(path)
    names = manifest.recorded_files(path)
    if stored is not None:
        result = Verification(path, "finished", manifest.damages(path, stored))
        result.verified = sorted(stored["files"].keys() - {d.file for d in result.damages})
        _check_digest(result, stored["digest"])
        return result
    result = Verification(path, _state(path), found + structural_damages(path))
    _check_source(path, result.damages)
    states, sound = _checkpoints(path)
    result.damages += states
    crashes = _check_crashes(path, result.damages)
    hashed = {"recipe.json", *sound, *crashes}
    damaged = {damage.file for damage in result.damages}
    result.verified = [name for name in names if name in hashed - damaged]
    result.unverified = [name for name in names if name not in hashed | damaged]
    _check_digest(result, None)
    return result


def is_run(path: Path) -> bool:
    """True for a folder that is, or was, one of a run."""
    kept = ("recipe.json", "metrics.jsonl", "ckpt", manifest.MANIFEST)
    return path.is_dir() and any((path / name).exists() for name in kept)


def record_damages(path: Path, names: Collection[str] = RECORD) -> list[Damage]:
    """The damaged files among those that reports and tables read. Checkpoints are not opened."""
    stored, found = _manifest(path)
    if stored is not None:
        return manifest.damages(path, stored, names)
    return [d for d in found + structural_damages(path) if d.file in (*names, manifest.MANIFEST)]


def structural_damages(path: Path) -> list[Damage]:
    """What is wrong with the files of a run folder without a manifest, as far as can be seen."""
    finished = (path / RESULT).exists()
    found: list[Damage] = []
    _check_recipe(path, found)
    metrics = _lines(path, "metrics.jsonl", found, required=finished)
    events = _lines(path, "events.jsonl", found, required=True)
    epochs = [record["epoch"] for record in metrics if "test_accuracy" in record]
    begins = 1 + next((e.get("epoch", 0) for e in events if e["event"] == "fork"), 0)
    gaps = sorted(set(range(begins, max(epochs, default=0) + 1)) - set(epochs))
    if gaps and finished:
        listed = ", ".join(map(str, gaps[:5]))
        found.append(
            Damage("metrics.jsonl", "a line per epoch", f"none of epoch {listed}", fix_of(""))
        )
    for name in manifest.COMPUTED:
        content = _json_object(path, name, found)
        if name == RESULT and content is not None and metrics and not gaps:
            _check_result(content, metrics, found)
    return found


def _manifest(path: Path) -> tuple[dict[str, Any] | None, list[Damage]]:
    """The manifest, or what is wrong with it; neither for a run that has not got one."""
    if manifest.exists(path):
        try:
            return manifest.read(path), []
        except DamagedError as error:
            fix = "put a copy back; the files below were checked without it"
            return None, [Damage(manifest.MANIFEST, "a sealed list of files", str(error), fix)]
    if not (path / RESULT).exists() or not RunFolder(path).has_manifest():
        return None, []
    fix = "rmploss train --resume writes it again, if nothing else is damaged"
    return None, [Damage(manifest.MANIFEST, "the manifest of a finished run", "nothing", fix)]


def _state(path: Path) -> str:
    return "finished, without a manifest" if (path / RESULT).exists() else "not finished"


def _check_recipe(path: Path, found: list[Damage]) -> None:
    try:
        RunFolder(path).stored_recipe()
    except UserError as error:
        what = "; ".join(
            f"{p.where.removeprefix(str(path)).lstrip('/')} {p.what}" for p in error.problems
        )
        found.append(Damage("recipe.json", "the recipe of the run", what, fix_of("")))


def _lines(path: Path, name: str, found: list[Damage], required: bool) -> list[dict[str, Any]]:
    """The records of a file of lines. A last line without end is no damage: the process died."""
    try:
        data = read_regular(path / name)
    except FileNotFoundError:
        if required:
            found.append(Damage(name, "a file", "nothing", fix_of(name)))
        return []
    except OSError as error:
        found.append(Damage(name, "a file", reason(error), fix_of(name)))
        return []
    *lines, _ = data.decode(errors="replace").split("\n")
    is_sound = is_metrics if name == "metrics.jsonl" else is_event
    records = [parse_line(line) for line in lines]
    sound = [record for record in records if record is not None and is_sound(record)]
    for number, record in enumerate(records, 1):
        if record is None or not is_sound(record):
            what = f"line {number}: {lines[number - 1][:40]!r}"
            found.append(Damage(name, "a record in every line", what, fix_of(name)))
            break
    return sound


def _json_object(path: Path, name: str, found: list[Damage]) -> dict[str, Any] | None:
    try:
        content = json.loads(read_regular(path / name))
        if isinstance(content, dict):
            return content
        what = "no JSON object"
    except FileNotFoundError:
        return None
    except OSError as error:
        what = reason(error)
    except (ValueError, RecursionError):
        what = "no JSON"
    found.append(Damage(name, "a JSON object", what, fix_of(name)))
    return None


def _check_result(
    result: dict[str, Any], metrics: list[dict[str, Any]], found: list[Damage]
) -> None:
    """result.json repeats what metrics.jsonl says: they must agree."""
    try:
        again = summarize(metrics)
    except (KeyError, TypeError, ValueError) as error:
        found.append(Damage("metrics.jsonl", "all fields", f"no {error}", fix_of("metrics.jsonl")))
        return
    differing = [key for key in result if key in again and result[key] != again[key]]
    if differing:
        key = differing[0]
        expected = f"{key} = {again[key]}, from metrics.jsonl"
        fix = "one of the two is damaged: put copies of both back"
        found.append(Damage(RESULT, expected, repr(result[key])[:60], fix))


def _check_source(path: Path, found: list[Damage]) -> None:
    try:
        with zipfile.ZipFile(io.BytesIO(read_regular(path / "source.zip"))) as archive:
            wrong = archive.testzip()
        what = f"{wrong} damaged" if wrong else ""
    except FileNotFoundError:
        return
    except OSError as error:
        what = reason(error)
    except Exception as error:  # zipfile raises whatever its parts raise
        what = str(error) or type(error).__name__
    if what:
        found.append(Damage("source.zip", "a sound archive", what, fix_of("source.zip")))


def _check_crashes(path: Path, found: list[Damage]) -> list[str]:
    """The sound records of steps that were not finite, by name."""
    sound = []
    for file in crash.records(path):
        name = file.relative_to(path).as_posix()
        try:
            checkpoint.unseal(read_regular(file))
        except (DamagedError, OSError) as error:
            what = reason(error) if isinstance(error, OSError) else "other bytes"
            found.append(Damage(name, "a sealed record", what, fix_of(name)))
            continue
        sound.append(name)
    return sound


def _checkpoints(path: Path) -> tuple[list[Damage], list[str]]:
    """The damages of all checkpoints of a run, and the names of the sound files."""
    try:
        own = RunFolder(path).recipe_hash
    except UserError:
        own = ""
    found, sound = [], []
    for folder in checkpoint.saved(path):
        name = folder.relative_to(path).as_posix()
        try:
            loaded = checkpoint.load_folder(folder, recipe_hash=own or None)
        except CheckpointError as error:
            why = str(error).removeprefix(f"{folder} ")
            found.append(Damage(name, "an intact checkpoint", why, fix_of(f"{name}/")))
            continue
        sound += [f"{name}/{checkpoint.STATE}", f"{name}/{checkpoint.MANIFEST}"]
        if folder == checkpoint.saved(path)[0] and loaded.metrics is not None:
            there = RunFolder(path).metrics_hash(loaded.counters)
            if there != loaded.metrics:
                expected = f"the lines that {name} saw, SHA-256 {loaded.metrics[:12]}"
                what = f"others, SHA-256 {there[:12]}"
                found.append(Damage("metrics.jsonl", expected, what, fix_of("metrics.jsonl")))
    for folder in sorted((path / "ckpt").glob("*.corrupt*")):
        name = folder.relative_to(path).as_posix()
        fix = "it was set aside by a resume: remove it when you have looked at it"
        found.append(Damage(name, "an intact checkpoint", "one found damaged earlier", fix))
    return found, sound


def digest_of(folder: RunFolder) -> str:
    """The run digest, from the newest intact checkpoint and metrics.jsonl."""
    loaded = checkpoint.load_latest(folder.path, recipe_hash=folder.recipe_hash)
    return digest(loaded.model_state, loaded.optimizer_state.tensors, folder.metrics())


def _check_digest(result: Verification, expected: str | None) -> None:
    """Compute the digest anew, and compare it with that of the manifest."""
    try:
        result.digest = digest_of(RunFolder(result.path))
    except UserError:
        return
    if expected is not None and result.digest != expected and not result.damages:
        fix = "the manifest and the files are not of one run: put copies of all back"
        result.damages.append(
            Damage(manifest.MANIFEST, f"digest {expected[:12]}", result.digest[:12], fix)
        )
