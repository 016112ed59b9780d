"""Rows of a CSV file in docs/ or results/: processes that add some at the same time lose none."""

import csv
import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rmploss import store


def read(path: Path) -> list[dict[str, str]]:
    """The rows of a file, or none if it is missing."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8") as lines:
        return [*csv.DictReader(lines)]


def update(
    path: Path, fields: Sequence[str], rows: Callable[[], Iterable[Mapping[str, object]]]
) -> None:
    """Write or replace a file, in one step.

    path: of the file.
    fields: the columns.
    rows: reads the rows so far and returns all rows; other processes wait for it.
    """

    def change() -> bytes:
        text = io.StringIO()
        writer: csv.DictWriter[str] = csv.DictWriter(text, fields, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows())
        return text.getvalue().encode()

    store.update(path, change)
