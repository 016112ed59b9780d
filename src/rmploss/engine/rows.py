"""Rows of finished runs in a CSV file, which is written anew, atomically, for every new row.

Processes that add rows at the same time do so one after the other. The file is the whole state of a
comparison: a run with a row is not run again, wherever the file is read. A row belongs to a recipe
by the recipe's fingerprint and seed.
"""

import csv
import io
import math
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from rmploss import store
from rmploss.engine.files import read_regular
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe

DIGITS = 12
"""Of a fingerprint in a row."""


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
    outcome: "" or "diverged", and then there are no results.
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

    path: of the file, which may be missing.

    Raises `UserError` for a file with other columns.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows = _read(path)

    def of(self, recipe: Recipe) -> Row | None:
        """The row of a recipe and its seed."""
        return self._rows.get((_mark(recipe), recipe.seed))

    def add(self, row: Row) -> None:
        """Write a row into the file, beside those that others have written meanwhile.

        Raises `StoreError` if the file cannot be written.
        """

        def change() -> bytes:
            self._rows = {**_read(self.path), **self._rows, (row.fingerprint, row.seed): row}
            return self._text().encode()

        store.make_folder(self.path.parent)
        store.try_twice(lambda: store.update(self.path, change))

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
        kind=kind, recipe=recipe.name, seed=recipe.seed, fingerprint=_mark(recipe), setting=setting
    )


def _mark(recipe: Recipe) -> str:
    return recipe.fingerprint()[:DIGITS]


def _read(path: Path) -> dict[tuple[str, int], Row]:
    if not path.exists():
        return {}
    text = read_regular(path).decode("utf-8-sig", errors="replace")
    reader = csv.DictReader(io.StringIO(text))
    found: dict[tuple[str, int], Row] = {}
    line = 1
    try:
        if reader.fieldnames != [field.name for field in fields(Row)]:
            raise ValueError("other columns")
        line = 2
        for values in reader:
            if None in values.values():
                raise ValueError("fewer values than columns")
            row = Row(**{**values, "seed": int(values["seed"])})
            if not math.isfinite(row.accuracy):
                raise ValueError("not finite")
            found[row.fingerprint, row.seed] = row
            line = reader.line_num + 1
    except (csv.Error, KeyError, TypeError, ValueError):
        what, fix = "is no row of a comparison", "another --file, or remove this one"
        problem = Problem(f"{path}, line {line}", what, fix)
        raise UserError("cannot go on with these rows", [problem]) from None
    return found
