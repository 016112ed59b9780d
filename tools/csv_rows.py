"""Rows of a CSV file in docs/ or results/: processes that add some at the same time lose none."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from rmploss import store
from rmploss.errors import Problem, UserError

COUNT = "[0-9]+"
NUMBER = r"[0-9]+(\.[0-9]+)?(e[-+]?[0-9]+)?"
PERCENT = r"100(\.0+)?|[0-9]{1,2}(\.[0-9]+)?"
"""Patterns of values: a whole number, one that is not negative, and a percentage."""


def read(path: Path, columns: Mapping[str, str] | None = None) -> list[dict[str, str]]:
    """The rows of a file, or none if it is missing.

    path: of the file.
    columns: the columns -> a pattern of all values; None: any columns and values.

    Raises `UserError`, which names file and line, for a line that is no row.
    """
    if not path.is_file():
        return []
    lines = csv.reader(io.StringIO(path.read_text(encoding="utf-8", errors="replace")))
    found: list[dict[str, str]] = []
    line = 1
    try:
        head = next(lines, [])
        if columns is not None and head != [*columns]:
            raise _FaultError(f"the columns are not {','.join(columns)}")
        while True:
            line = lines.line_num + 1
            values = next(lines, None)
            if values is None:
                return found
            if values:  # A blank line is no row.
                found.append(_row_of(head, values, columns or {}))
    except (csv.Error, _FaultError) as fault:
        problem = Problem(f"{path}, line {line}", str(fault), "correct or remove this line")
        raise UserError("a file of rows is damaged", [problem]) from None


class _FaultError(Exception):
    """What is wrong with a line."""


def _row_of(
    head: Sequence[str], values: Sequence[str], columns: Mapping[str, str]
) -> dict[str, str]:
    if len(values) != len(head):
        raise _FaultError(f"{len(values)} values, not {len(head)}")
    row = dict(zip(head, values, strict=True))
    for name, pattern in columns.items():
        if re.fullmatch(pattern, row[name]) is None:
            raise _FaultError(f"{name} cannot be {row[name]!r}")
    return row


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
