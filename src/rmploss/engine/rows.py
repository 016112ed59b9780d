"""Rows of finished runs in a CSV file, which is written anew, atomically, for every new row.

Processes that add rows at the same time do so one after the other. The file is the whole state of a
comparison: a run with a row is not run again, wherever the file is read. A row belongs to a recipe
by the recipe's fingerprint and seed.
"""

import csv
import io
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rmploss import store
from rmploss.engine.build import resolve
from rmploss.engine.files import read_regular
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe

DIGITS = 12
"""Of a fingerprint in a row."""
SHOWN = 40
"""The characters of a wrong value that an error shows."""
FORMS: Mapping[str, tuple[str, str]] = {
    "kind": ("try|report", "try or report"),
    "recipe": (".+", "a name"),
    "seed": ("[0-9]{1,18}", "a whole number, 0 or more"),
    "fingerprint": (f"[0-9a-f]{{{DIGITS}}}", f"{DIGITS} hexadecimal digits"),
    "tested_on": ("[0-9a-f]*", "hexadecimal digits"),
    "best_epoch": ("[0-9]*", "a whole number"),
    **dict.fromkeys(
        ("last_accuracy", "best_accuracy", "quantization_error", "firing_rate", "train_cpu_s"),
        (r"([0-9]+(\.[0-9]+)?(e[+-]?[0-9]+)?|nan|inf)?", "a number"),
    ),
    "outcome": ("(diverged)?", "empty or diverged"),
}
"""A field of a row -> a pattern of all its values, and what those are in words."""
RESULTS: Mapping[str, tuple[float, float]] = {
    "last_accuracy": (0, 100),
    "best_accuracy": (0, 100),
    "best_epoch": (1, math.inf),
    "quantization_error": (0, math.inf),
    "firing_rate": (0, math.inf),
    "train_cpu_s": (0, math.inf),
}
"""A result of a run -> the least and the greatest value."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A finished run.

    kind: "try" or "report".
    recipe: the name of its recipe; fingerprint: the first digits of its hash, without the seed.
    setting: what differs from the recipe of the comparison, in the words of `--set`.
    tested_on: the first digits of the hash of the split that it was tested on.
    last_accuracy, best_accuracy: on that split, of the last and of the best epoch, in percent.
    quantization_error, firing_rate: of the last epoch, dimensionless.
    train_cpu_s: processor time of the training.
    outcome: "" or "diverged", and then there are no results. Without it a row in a file has all.
    """

    kind: str
    recipe: str
    seed: int
    fingerprint: str
    setting: str
    tested_on: str = ""
    last_accuracy: str = ""
    best_accuracy: str = ""
    best_epoch: str = ""
    quantization_error: str = ""
    firing_rate: str = ""
    train_cpu_s: str = ""
    outcome: str = ""

    @property
    def accuracy(self) -> float:
        """Of the last epoch in percent; 0 for a run that diverged."""
        return float(self.last_accuracy or 0)


class Rows:
    """The rows of a file, by recipe.

    path: of the file, which may be missing. Of a symbolic link the file is that to which it leads.

    Raises `UserError` for a file with other columns, for a line that is no row of `search`, and for
    two lines of one run that differ.
    """

    def __init__(self, path: Path) -> None:
        try:
            self.path = path.resolve()
        except (OSError, RuntimeError) as error:  # a loop of symbolic links
            problem = Problem(str(path), str(error), "the path of a file")
            raise UserError("cannot read these rows", [problem]) from None
        self._rows = _read(self.path)

    def of(self, recipe: Recipe) -> Row | None:
        """The row of a recipe and its seed."""
        return self._rows.get((mark(recipe), recipe.seed))

    def add(self, row: Row) -> None:
        """Write a row into the file, beside those that it holds now.

        What others have added, corrected or removed meanwhile counts, not what was read before.

        Raises `StoreError` if the file cannot be written, `UserError` if it is damaged meanwhile.
        """

        def change() -> bytes:
            self._rows = {**_read(self.path), (row.fingerprint, row.seed): row}
            return self._text().encode()

        store.make_folder(self.path.parent)
        store.try_twice(lambda: store.update(self.path, change))

    def require_same_samples(self) -> None:
        """Raise `UserError` if rows of one kind were tested on different samples."""
        found: dict[str, Counter[str]] = defaultdict(Counter)
        for row in self._rows.values():
            if row.tested_on:
                found[row.kind][row.tested_on] += 1
        problems = [
            Problem(
                f"{self.path}: {kind}",
                "tested on " + ", on ".join(f"{split} ({n} rows)" for split, n in by.most_common()),
                "remove the lines of the other samples, and run the search again",
            )
            for kind, by in found.items()
            if len(by) > 1
        ]
        if problems:
            raise UserError("rows of different test samples cannot be compared", problems)

    def require_writable(self) -> None:
        """Raise `StoreError` unless rows can be added, before a run is trained for one."""
        store.require_writable(self.path.parent)
        if self.path.parent.exists():
            store.require_updatable(self.path)

    def _text(self) -> str:
        """All rows as the text of the file."""
        out = io.StringIO()
        names = [field.name for field in fields(Row)]
        writer: csv.DictWriter[str] = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        rows = sorted(self._rows.values(), key=lambda r: (r.kind, r.recipe, r.setting, r.seed))
        writer.writerows(asdict(each) for each in rows)
        return out.getvalue()


def begin_row(kind: str, recipe: Recipe, setting: str) -> Row:
    """The row of a recipe without its results."""
    return Row(
        kind=kind, recipe=recipe.name, seed=recipe.seed, fingerprint=mark(recipe), setting=setting
    )


def mark(recipe: Recipe) -> str:
    """The first digits of the hash of a recipe with all options, those at their defaults too.

    A row of another default, or of another rule for an option that follows from others, is a row of
    another network.
    """
    return resolve(recipe).fingerprint()[:DIGITS]


def _read(path: Path) -> dict[tuple[str, int], Row]:
    if not path.exists():
        return {}
    text = read_regular(path).decode("utf-8-sig", errors="replace")
    found: dict[tuple[str, int], tuple[int, Row]] = {}
    for line, row in _numbered(text, path):
        first, other = found.setdefault((row.fingerprint, row.seed), (line, row))
        if other != row:
            what = f"is of the run of line {first}, but differs from it"
            raise _refusal(path, line, what, "remove the wrong one of the two lines")
    return {key: row for key, (_, row) in found.items()}


def _numbered(text: str, path: Path) -> Iterator[tuple[int, Row]]:
    """The rows of the text of a file, each with the number of its first line."""
    lines = csv.reader(io.StringIO(text))
    line = 1
    try:
        if next(lines, None) != [field.name for field in fields(Row)]:
            what, fix = "is not the head of a file of rows", "move this file away"
            raise _refusal(path, line, what, fix)
        while True:
            line = lines.line_num + 1
            values = next(lines, None)
            if values is None:
                return
            if values:  # A blank line is no row.
                yield line, _row_of(values)
    except (csv.Error, _FaultError) as fault:
        what = f"is no row of a comparison: {fault}"
        raise _refusal(path, line, what, "correct or remove this line") from None


class _FaultError(Exception):
    """What is wrong with a row."""


def _row_of(values: Sequence[str]) -> Row:
    """The row of the values of a line, all of which are checked; raises `_FaultError`."""
    names = [field.name for field in fields(Row)]
    if len(values) != len(names):
        raise _FaultError(f"{len(values)} values, not {len(names)}")
    found = dict(zip(names, values, strict=True))
    for name, (form, words) in FORMS.items():
        if re.fullmatch(form, found[name]) is None:
            raise _FaultError(f"{name} {_shown(found[name])} is not {words}")
    for name, (low, high) in RESULTS.items():
        _check_result(name, found[name], low, high, bool(found["outcome"]))
    if float(found["best_accuracy"] or 0) < float(found["last_accuracy"] or 0):
        raise _FaultError("best_accuracy is less than last_accuracy")
    return Row(**{**found, "seed": int(found["seed"])})


def _check_result(name: str, value: str, low: float, high: float, diverged: bool) -> None:
    """Raises `_FaultError` for a result that no run has."""
    if diverged:
        if value:
            raise _FaultError(f"{name} is {_shown(value)}, but a run that diverged has no results")
        return
    if not value:
        raise _FaultError(f"{name} is empty")
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not (math.isfinite(number) and low <= number <= high):
        limits = f"from {low:g} to {high:g}" if math.isfinite(high) else f"of at least {low:g}"
        raise _FaultError(f"{name} {_shown(value)} is not a number {limits}")


def _shown(value: str) -> str:
    return repr(value if len(value) <= SHOWN else value[:SHOWN] + "...")


def _refusal(path: Path, line: int, what: str, fix: str) -> UserError:
    problem = Problem(f"{path}, line {line}", what, fix)
    return UserError("cannot go on with these rows", [problem])
