"""The folder of a run: its complete record, readable with `cat` and `jq`.

recipe.json      the resolved recipe and its SHA-256, as written by the version that began the run
source.zip       the source of that version
metrics.jsonl    one line per epoch, or per some steps: `epoch` and `step` as in `Counters`
events.jsonl     one line per event: start, begin, fork, execute, resume, interrupted, ...
crash/           steps that were not finite (`engine.crash`)
ckpt/            checkpoints (`engine.checkpoint`); the record is complete without them
manifest.json    size and SHA-256 of all of these, once the run is finished (`engine.manifest`)
"""

import hashlib
import json
import math
import shlex
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rmploss import store
from rmploss.engine.checkpoint import Counters, saved_recipe
from rmploss.engine.differences import recipe_problems
from rmploss.engine.environment import environment, source_zip, versions
from rmploss.engine.files import read_regular
from rmploss.engine.journal import Journal
from rmploss.errors import Problem, StoreError, UserError, closest
from rmploss.recipes import Recipe


@dataclass(frozen=True)
class RunFolder:
    """One run on the disk, from `create` or `open`. Only the owner of its `lock` writes to it."""

    path: Path

    @classmethod
    def create(
        cls,
        parent: Path,
        name: str,
        recipe: Mapping[str, Any],
        *,
        command: Sequence[str],
        exactly: str | None = None,
    ) -> "RunFolder":
        """Create `<parent>/<name>-s<seed>-<hash>`, with "-2", "-3", ... if that exists.

        parent: the folder of all runs.
        name: of the run, for people; `UserError` if it is no safe name of a folder.
        recipe: the resolved recipe as JSON, with its `seed`.
        command: the words of the command line.
        exactly: the name of the folder instead; `UserError` if it exists.

        The folder appears with its recipe, source and first event, or not at all.
        """
        _check_name(exactly or name)
        full_hash = recipe_hash(recipe)
        stem = exactly or folder_name(name, recipe)
        first_event = _event(
            "start", command=list(command), environment=environment(), manifest=True
        )
        files = {
            "recipe.json": _document({"recipe": dict(recipe), "sha256": full_hash}),
            "source.zip": source_zip(),
            "events.jsonl": f"{first_event}\n".encode(),
        }

        def write() -> Path:
            store.make_folder(parent)
            store.clean_shared(parent)
            if exactly:
                require_free(parent / stem)
                return store.write_first_free(iter([parent / stem]), files)
            paths = (parent / (stem if n == 1 else f"{stem}-{n}") for n in count(1))
            return store.write_first_free(paths, files)

        try:
            return cls(store.try_twice(write))
        except ValueError:  # Another process made the folder meanwhile.
            require_free(parent / stem)
            raise

    @staticmethod
    def require_place(parent: Path, name: str) -> None:
        """Raise the errors of `create` that can be known before the data are opened.

        parent, name: see `create`. Nothing remains on the disk.
        """
        _check_name(name)
        store.require_writable(parent)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run; `UserError` with the nearest existing name if there is none."""
        if not (path / "recipe.json").is_file():
            runs = [recipe.parent.name for recipe in path.parent.glob("*/recipe.json")]
            guess = closest(path.name, runs)
            fix = f"did you mean {path.parent / guess}?" if guess else ""
            what = "holds no recipe.json" if path.is_dir() else "is not a folder"
            raise UserError("not a run", [Problem(str(path), what, fix)])
        return cls(path)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock the run inside the block; first remove half-written files of a killed process.

        Raises `LockedError`, which names the owner, if another process holds the lock.
        """
        with store.lock(self.path):
            for folder in (self.path, self.path / "ckpt"):
                if folder.is_dir():
                    store.clean_temporaries(folder)
            if self._events.path.is_file():
                _truncate(self._events.path, lambda line: parse_line(line) is not None)
            try:
                yield
            finally:
                with suppress(StoreError):  # An error of the block says more.
                    self.flush()

    def recipe(self) -> Recipe:
        """The recipe of the run; fields added to `Recipe` since then have their defaults.

        Raises `UserError` if the file changed after the run began, or if it has a field that this
        version does not know; the error names the field and the version that wrote it.
        """
        stored = self.stored_recipe()
        where, known = self.path / "recipe.json", {field.name for field in fields(Recipe)}
        ours, theirs = versions()["rmploss"], self.written_by()
        problems = [
            Problem(
                f"{where}: {name}", f"unknown to rmploss {ours}", f"use {theirs}, which wrote it"
            )
            for name in stored
            if name not in known
        ]
        if problems:
            raise UserError("the recipe does not fit this version", problems)
        try:
            return Recipe.from_json(stored)
        except UserError as error:
            problem = Problem(str(where), error.title, f"written by {theirs}")
            raise UserError("the recipe does not fit this version", [problem]) from None

    @cached_property
    def recipe_hash(self) -> str:
        """SHA-256 of the stored recipe, which every checkpoint of the run repeats.

        Not of `recipe()`, which has the fields added since. The file is read once, so that later
        damage to it does not stop a running training from saving.
        """
        return recipe_hash(self.first_recipe)

    @cached_property
    def first_recipe(self) -> dict[str, Any]:
        """`stored_recipe`, read once."""
        return self.stored_recipe()

    def stored_recipe(self) -> dict[str, Any]:
        """The recipe as JSON, as stored; `UserError` if it changed after the run began."""
        where = self.path / "recipe.json"
        try:
            document = json.loads(read_regular(where))
            recipe, expected = dict(document["recipe"]), document["sha256"]
            found = recipe_hash(recipe)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            why = "holds no recipe" if isinstance(error, KeyError | TypeError) else _why(error)
            fix = "start a new run: without the recipe the checkpoints are useless"
            raise UserError("the recipe is damaged", [Problem(str(where), why, fix)]) from None
        if found != expected:
            raise UserError("the recipe is not that of the run", self._edits(recipe, str(expected)))
        return recipe

    def _edits(self, recipe: Mapping[str, Any], expected: str) -> list[Problem]:
        """What was changed in recipe.json: each field, or the command that began the run."""
        where = str(self.path / "recipe.json")
        problem = Problem(where, "was changed after the run began", "start a new run")
        before = saved_recipe(self.path, expected)
        if before is not None:
            return [problem, *recipe_problems(where, before, recipe)]
        command = next((e["command"] for e in self.events() if "command" in e), None)
        if not isinstance(command, list):
            return [problem]
        began = shlex.join(map(str, command))
        return [problem, Problem("the run began with", began, "write its values again")]

    def log_metrics(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; it survives a loss of power, or waits (`Journal`).

        record: its "epoch" (completed) and "step" are those of `Counters`. NaN and infinities,
        which JSON lacks, are written as null; an event of kind "non-finite" records them.
        """
        if not {"epoch", "step"} <= record.keys():
            raise ValueError(f"a record of metrics needs its epoch and step: {dict(record)}")
        strange: dict[str, str] = {}
        line = _json(_finite(record, "", strange))
        if strange:
            when = {"epoch": record["epoch"], "step": record["step"]}
            self.log_event("non-finite", **when, non_finite=strange)
        self._metrics.append(line)

    def log_event(self, kind: str, **fields: Any) -> None:
        """Append a line to events.jsonl: the time (UTC), the kind, the fields.

        A NaN or infinity among the fields is written as null and recorded under `non_finite`.
        """
        self._events.append(_event(kind, **fields))

    def flush(self) -> None:
        """Write the lines that wait for the disk; `StoreError` if it still refuses them."""
        waited = self._metrics.waiting + self._events.waiting
        self._metrics.flush()
        self._events.flush()
        if waited:
            self.log_event("waited", lines=waited)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, without damaged or half-written lines."""
        return [record for record in _records(self._metrics) if is_metrics(record)]

    def metrics_hash(self, counters: Counters) -> str:
        """SHA-256 of the records of metrics.jsonl up to a checkpoint, each once and in order.

        counters: of the checkpoint.
        """
        records = {
            _json(record): None
            for record in self.metrics()
            if record["epoch"] <= counters.epoch and record["step"] <= counters.step
        }
        return hashlib.sha256("\n".join(records).encode()).hexdigest()

    def events(self) -> list[dict[str, Any]]:
        """The records of events.jsonl, without damaged or half-written lines."""
        return [record for record in _records(self._events) if is_event(record)]

    def has_manifest(self) -> bool:
        """True if the version that began the run writes a manifest when the run is finished."""
        return any(event.get("manifest") is True for event in self.events())

    def rewind(self, counters: Counters) -> int:
        """Drop the lines of metrics.jsonl after a checkpoint, repeated and damaged ones.

        counters: of the checkpoint. The resumed run writes later lines again, so that the file
        becomes that of an unbroken run. Returns the number of dropped lines.
        """
        seen: set[str] = set()

        def keep(line: str) -> bool:
            record = parse_line(line)
            if record is None or not is_metrics(record):
                return False
            content = _json(timeless(record))
            new = content not in seen
            seen.add(content)
            return new and record["epoch"] <= counters.epoch and record["step"] <= counters.step

        return _truncate(self._metrics.path, keep) if self._metrics.path.is_file() else 0

    def written_by(self) -> str:
        """The version that began the run, for example "rmploss 0.1.0 (commit 9fdecf9)"."""
        started = [event for event in self.events() if event.get("event") == "start"]
        there = started[0].get("environment") if started else None
        if not isinstance(there, Mapping) or "rmploss" not in there:
            return "another version of rmploss"
        commit = there.get("commit")
        return f"rmploss {there['rmploss']}" + (f" (commit {commit})" if commit else "")

    @cached_property
    def _metrics(self) -> Journal:
        return Journal(self.path / "metrics.jsonl")

    @cached_property
    def _events(self) -> Journal:
        return Journal(self.path / "events.jsonl")


def recipe_hash(recipe: Mapping[str, Any]) -> str:
    """SHA-256 of a recipe; the order of its fields does not matter."""
    return hashlib.sha256(_json(recipe, sort_keys=True).encode()).hexdigest()


def folder_name(name: str, recipe: Mapping[str, Any]) -> str:
    """The name of the first run folder of a recipe.

    name: of the run, for people.
    recipe: the recipe as JSON, with its `seed`.
    """
    return f"{name}-s{recipe['seed']}-{recipe_hash(recipe)[:4]}"


def require_free(path: Path) -> None:
    """Raise `UserError` if there is something at the place of a new run folder."""
    if path.exists() or path.is_symlink():
        fix = "--resume auto goes on with it; or another --name"
        raise UserError("the run folder exists", [Problem(str(path), "is there", fix)])


def digest(
    model_state: Mapping[str, Tensor],
    optimizer_tensors: Mapping[str, Tensor],
    metrics: Iterable[Mapping[str, Any]],
) -> str:
    """The run digest: SHA-256 of parameters, buffers, optimizer and metrics without times.

    model_state: parameters and buffers by name.
    optimizer_tensors: see `OptimizerState.tensors`.
    metrics: the records of metrics.jsonl.

    Two runs have the same digest if they are equal bit for bit; interruptions do not change it.
    """
    total = hashlib.sha256()
    for part, tensors in (("model", model_state), ("optimizer", optimizer_tensors)):
        for name, tensor in sorted(tensors.items()):
            total.update(f"{part}/{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            total.update(flat.view(torch.uint8).numpy().tobytes())
    for record in metrics:
        total.update(f"{_json(timeless(record))}\n".encode())
    return total.hexdigest()


def timeless(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without its fields of time, whose names end in "_s" or "seconds"."""
    return {key: value for key, value in record.items() if not key.endswith(("_s", "seconds"))}


def _check_name(name: str) -> None:
    problems = [
        Problem(f"name = {name!r}", what, "letters, digits, '-', '_' and '.' are always right")
        for what, wrong in {
            "is empty": not name,
            f"has {len(name)} characters, more than 100": len(name) > 100,
            "holds a path separator": "/" in name or "\\" in name,
            "holds a control character": any(unicodedata.category(c)[0] == "C" for c in name),
            "begins with '.' or '-'": name.startswith((".", "-")),
            "begins or ends with a blank": name != name.strip(),
        }.items()
        if wrong
    ]
    if problems:
        raise UserError("bad name of a run", problems)


def _json(value: Any, **options: Any) -> str:
    return json.dumps(value, allow_nan=False, ensure_ascii=False, **options)


def _document(value: Any) -> bytes:
    return f"{_json(value, indent=2)}\n".encode()


def _event(kind: str, **fields: Any) -> str:
    strange: dict[str, str] = {}
    fields = _finite(fields, "", strange)
    if strange:
        fields["non_finite"] = strange
    now = datetime.now(UTC).isoformat(timespec="milliseconds")
    return _json({"time": now, "event": kind, **fields})


def _finite(value: Any, where: str, strange: dict[str, str]) -> Any:
    """A value with None for each NaN or infinity; `strange` gets them by their place."""
    match value:
        case float() if not math.isfinite(value):
            strange[where] = str(value)
            return None
        case Mapping():
            return {
                key: _finite(part, f"{where}.{key}" if where else key, strange)
                for key, part in value.items()
            }
        case list() | tuple():
            return [_finite(part, f"{where}.{i}", strange) for i, part in enumerate(value)]
    return value


def _truncate(path: Path, keep: Callable[[str], bool]) -> int:
    return store.try_twice(lambda: store.truncate_lines(path, keep))


def _records(journal: Journal) -> list[dict[str, Any]]:
    try:
        lines = journal.read().decode(errors="replace").split("\n")
    except OSError:
        return []  # `engine.verify` says what is wrong
    return [record for line in lines if (record := parse_line(line)) is not None]


def parse_line(line: str) -> dict[str, Any] | None:
    """The record in a line of metrics.jsonl or events.jsonl; None if it holds none."""
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def is_event(record: Mapping[str, Any]) -> bool:
    """True if a record names its event, and its other known fields have their types."""
    kinds = {"event": str, "time": str, "environment": dict, "command": list, "rejected": list}
    kinds |= {"inexact": list, "step": int, "epoch": int}
    return "event" in record and all(isinstance(record.get(k, t()), t) for k, t in kinds.items())


def is_metrics(record: Mapping[str, Any]) -> bool:
    """True if a record has a whole epoch and step, and numbers, words or nothing elsewhere."""
    when = (record.get("epoch"), record.get("step"))
    layers = record.get("layers", {})
    rest = [value for key, value in record.items() if key != "layers"]
    return (
        all(type(value) is int and 0 <= value < 1 << 62 for value in when)
        and all(map(_is_plain, rest))
        and _is_number(record.get("test_accuracy", 0.0))
        and all(record.get(key) is None or _is_number(record[key]) for key in _NUMBERS)
        and isinstance(layers, dict)
        and all(
            isinstance(layer, dict) and all(v is None or _is_number(v) for v in layer.values())
            for layer in layers.values()
        )
    )


_NUMBERS = (
    "lr", "lambda", "train_loss", "train_ce", "train_regularizer", "test_ce",
    "quantization_error", "firing_rate", "train_s", "test_s", "train_cpu_s",
)  # fmt: skip


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e300


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, str | bool | list | dict) or _is_number(value)


def _refuse(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error)
