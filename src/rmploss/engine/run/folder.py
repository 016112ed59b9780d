"""`RunFolder`: create, open, lock, log, read, and cut back to a checkpoint."""

import hashlib
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from rmploss import plugins, store
from rmploss.engine.checkpoint import Counters
from rmploss.engine.environment import environment, source_files, source_zip
from rmploss.engine.journal import Journal
from rmploss.engine.run.lines import (
    event_line,
    finite,
    is_event,
    is_metrics,
    parse_line,
    timeless,
    to_json,
)
from rmploss.engine.run.names import check_name, folder_name, require_free
from rmploss.engine.run.recipe import (
    RECIPE,
    edits,
    read_plugged,
    read_recipe,
    recipe_hash,
    to_recipe,
)
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
        plugged: Sequence[dict[str, str]] = (),
        given: Mapping[str, Any] | None = None,
    ) -> "RunFolder":
        """Create `<parent>/<name>-s<seed>-<hash>`, with "-2", "-3", ... if that exists.

        parent: the folder of all runs.
        name: of the run, for people; `UserError` if it is no safe name of a folder.
        recipe: as JSON with all options (`build.resolve`) and its `seed`.
        command: the words of the command line.
        exactly: the name of the folder instead; `UserError` if it exists.
        plugged: where entries of the recipe come from that are not of this package
            (`engine.origins`); recorded beside the recipe, their files in source.zip.
        given: the recipe as it was given, whose hash is in the name; None: `recipe`.

        The folder appears with its recipe, source and first event, or not at all.
        """
        check_name(exactly or name)
        full_hash = recipe_hash(recipe)
        stem = exactly or folder_name(name, recipe if given is None else given)
        first_event = event_line(
            "start", command=list(command), environment=environment(), manifest=True
        )
        files = {
            RECIPE: _document(
                {"recipe": dict(recipe), "sha256": full_hash}
                | ({"plugins": list(plugged)} if plugged else {})
            ),
            "source.zip": source_zip(source_files(plugged)),
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
        check_name(name)
        store.require_writable(parent)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """An existing run; `UserError` with the nearest existing name if there is none."""
        try:
            found = (path / RECIPE).is_file()
        except OSError as error:  # of a name that no disk can hold
            problem = Problem(f"{str(path)[:60]}...", error.strerror or str(error))
            raise UserError("not a run", [problem]) from None
        if not found:
            what = "holds no recipe.json" if path.is_dir() else "is not a folder"
            raise UserError("not a run", [Problem(str(path), what, _nearest(path))])
        return cls(path)

    @property
    def resume_command(self) -> str:
        """The command that goes on with the run."""
        return f"rmploss train --resume {shlex.quote(str(self.path))}"

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
        plugins.remember(self.plugged())
        return to_recipe(stored, self.path / RECIPE, self.written_by())

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
        recipe, expected = read_recipe(self.path)
        if recipe_hash(recipe) != expected:
            problems = edits(self.path, recipe, expected, self._command())
            raise UserError("the recipe is not that of the run", problems)
        return recipe

    def plugged(self) -> list[dict[str, str]]:
        """Where the entries of the recipe came from that are not of this package."""
        return read_plugged(self.path)

    def _command(self) -> str:
        """The command that began the run; "": it is not known."""
        command = next((e["command"] for e in self.events() if "command" in e), None)
        return shlex.join(map(str, command)) if isinstance(command, list) else ""

    def log_metrics(self, record: Mapping[str, Any]) -> None:
        """Append a line to metrics.jsonl; it survives a loss of power, or waits (`Journal`).

        record: its "epoch" (completed) and "step" are those of `Counters`. NaN and infinities,
        which JSON lacks, are written as null; an event of kind "non-finite" records them.
        """
        if not {"epoch", "step"} <= record.keys():
            raise ValueError(f"a record of metrics needs its epoch and step: {dict(record)}")
        strange: dict[str, str] = {}
        line = to_json(finite(record, "", strange))
        if strange:
            when = {"epoch": record["epoch"], "step": record["step"]}
            self.log_event("non-finite", **when, non_finite=strange)
        self._metrics.append(line)

    def log_event(self, kind: str, **fields: Any) -> None:
        """Append a line to events.jsonl: the time (UTC), the kind, the fields.

        A NaN or infinity among the fields is written as null and recorded under `non_finite`.
        """
        self._events.append(event_line(kind, **fields))

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
            to_json(record): None
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
            content = to_json(timeless(record))
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


def _document(value: Any) -> bytes:
    return f"{to_json(value, indent=2)}\n".encode()


def _truncate(path: Path, keep: Callable[[str], bool]) -> int:
    return store.try_twice(lambda: store.truncate_lines(path, keep))


def _records(journal: Journal) -> list[dict[str, Any]]:
    try:
        lines = journal.read().decode(errors="replace").split("\n")
    except OSError:
        return []  # `engine.verify` says what is wrong
    return [record for line in lines if (record := parse_line(line)) is not None]


def _nearest(path: Path) -> str:
    """Words that name a run in, beside, or in `runs` beside a path that is none; "" without one."""
    if inside := sorted(path.glob(f"*/{RECIPE}")):
        return f"one of the runs in it: {inside[0].parent}"
    places = (path.parent, path.parent / "runs")
    found = {r.parent.name: r.parent for place in places for r in place.glob(f"*/{RECIPE}")}
    guess = closest(path.name, found)
    return f"did you mean {found[guess]}?" if guess else ""
