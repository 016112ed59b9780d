"""Label files beside recordings, in the form of DVS128 Gesture (Amir et al. 2017).

Beside `NAME.aedat` a file `NAME_labels.csv`, with one line for each part of the recording:

    class,startTime_usec,endTime_usec
    1,80048239,85092709

Times are those of the events, in microseconds, in digits. A class is a number or a name, spelled in
one way: 1 and 01 are an error. So is what is there twice: a column, a part, a class in the mapping,
a recording for a table of labels. Optional beside it:
`gesture_mapping.csv` (action,label) with the names of the numbers, `trials_to_train.txt` and
`trials_to_test.txt` with the names of the recordings of each split.
"""

import csv
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from rmploss.data._class_folders import TRAIN, visible_folders
from rmploss.errors import DataError, Problem

NUMBER = r"-?[0-9]{1,18}"
"""A class that is a number."""
ENDING = "_labels.csv"
COLUMNS = ("class", "startTime_usec", "endTime_usec")
MAPPING, MAPPING_COLUMNS = "gesture_mapping.csv", ("action", "label")
SPLITS = ("trials_to_train.txt", "trials_to_test.txt")


class Trial(NamedTuple):
    """A part of a recording: its class as written, start <= t < stop in microseconds."""

    name: str
    start: int
    stop: int


def label_file(recording: Path) -> Path:
    """Where the labels of a recording are."""
    return recording.with_name(recording.stem + ENDING)


def holds_labels(folder: Path, suffixes: Collection[str]) -> bool:
    """True if the folder, or one for training below it, has recordings with label files.

    suffixes: the endings of recordings, in lower case. A table beside images is none of theirs.
    """
    places = [folder / name for name in visible_folders(folder) if name.lower() in TRAIN]
    return any(recordings_in(place, suffixes) for place in (folder, *places))


def recordings_in(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The recordings of a folder that have labels, sorted. Raises `DataError` for two with one."""
    if not folder.is_dir():
        return []
    found = sorted(
        path
        for path in folder.iterdir()
        if path.suffix.lower() in suffixes and label_file(path).is_file()
    )
    of_table: dict[Path, Path] = {}
    for path in found:
        table = label_file(path)
        if (other := of_table.setdefault(table, path)) != path:
            what = f"is that of two recordings, {other.name} and {path.name}"
            fix = "remove one of them, or give it another name and a table of its own"
            raise DataError("labels used twice", [Problem(str(table), what, fix)])
    return found


def trials(recording: Path) -> list[Trial]:
    """The parts of a recording. Raises `DataError` that names the line of what is wrong."""
    path = label_file(recording)
    found: dict[tuple[int, int], Trial] = {}
    lines: dict[tuple[int, int], int] = {}
    for line, row in _rows(path, COLUMNS):
        start, stop = (_whole(row[name], path, line) for name in COLUMNS[1:])
        trial = Trial(row["class"].strip(), start, stop)
        if trial.start >= trial.stop:
            raise _wrong(path, line, f"ends at {trial.stop}, not after {trial.start} us")
        if not trial.name:
            raise _wrong(path, line, "names no class")
        if (start, stop) in found:
            raise _wrong(path, line, f"has the times of line {lines[start, stop]}", "one of them")
        found[start, stop], lines[start, stop] = trial, line
    if not found:
        raise _wrong(path, 2, "has no line below the names of the columns")
    return [*found.values()]


def _whole(text: str, path: Path, line: int) -> int:
    """A whole number in digits: Python itself takes "2_0" for 20, and digits of other scripts."""
    try:
        if re.fullmatch(r"-?[0-9]+", text.strip()):
            return int(text)
    except ValueError:  # thousands of digits
        pass
    raise _wrong(path, line, f"a time is no whole number: {text[:40]!r}")


def names_of_classes(folder: Path) -> dict[str, str]:
    """From the class of a label file to its name; empty without `gesture_mapping.csv`."""
    path = folder / MAPPING
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for line, row in _rows(path, MAPPING_COLUMNS):
        label = row["label"].strip()
        if label in found:
            what = f"names the class {label}, as a line above does"
            raise _wrong(path, line, what, "one of them")
        found[label] = row["action"].strip()
    return found


def require_one_spelling(folder: Path, classes: Collection[str]) -> None:
    """Raise `DataError` for two spellings of one number, such as 1 and 01.

    folder: for the error.
    classes: as label files and the mapping write them.
    """
    found: dict[int, str] = {}
    for name in sorted(classes):
        if re.fullmatch(NUMBER, name) and (other := found.setdefault(int(name), name)) != name:
            what = f"the class {int(name)} is written {other} and {name}"
            problem = Problem(str(folder), what, f"{name} in all tables")
            raise DataError("a class in two spellings", [problem])


def listed_splits(folder: Path, suffixes: Collection[str]) -> tuple[set[str], set[str]] | None:
    """The names of the recordings that train and that test; None without the two lists.

    suffixes: the endings of recordings, which the lists may leave out.
    """
    train, test = (folder / name for name in SPLITS)
    if not (train.is_file() and test.is_file()):
        return None
    names = [
        {_name(line.strip(), suffixes) for line in _text(path).splitlines() if line.strip()}
        for path in (train, test)
    ]
    both = sorted(names[0] & names[1])
    if both:
        what = f"{both[0]} is in {train.name}, too"
        raise DataError("the splits overlap", [Problem(str(test), what, "in one of them")])
    return names[0], names[1]


def _name(listed: str, suffixes: Collection[str]) -> str:
    """The name of a recording in a list, without its ending: ".01" of user.01 is none."""
    path = Path(listed)
    return path.stem if path.suffix.lower() in suffixes else path.name


def in_order(names: Collection[str]) -> list[str]:
    """Classes in the order of their labels: numbers by value, else names by letter."""
    whole = all(re.fullmatch(NUMBER, name) for name in names)
    return sorted(names, key=lambda name: (int(name), name)) if whole else sorted(names)


def _rows(path: Path, columns: tuple[str, ...]) -> Iterator[tuple[int, Mapping[str, str]]]:
    """The lines of a table with their numbers; each has text in every column."""
    table = csv.DictReader(_text(path).splitlines(), skipinitialspace=True)
    try:
        yield from _checked(table, path, columns)
    except csv.Error as error:
        raise _wrong(path, table.line_num + 1, str(error)) from error


def _checked(
    table: "csv.DictReader[str]", path: Path, columns: tuple[str, ...]
) -> Iterator[tuple[int, Mapping[str, str]]]:
    found = [name.strip() for name in table.fieldnames or ()]
    table.fieldnames = found
    missing = [name for name in columns if name not in found]
    if missing:
        raise _wrong(path, 1, f"lacks the column {missing[0]}", ",".join(columns))
    twice = [name for name in columns if found.count(name) > 1]
    if twice:
        raise _wrong(path, 1, f"has the column {twice[0]} twice", ",".join(columns))
    for row in table:
        if any(row[name] is None for name in columns):
            raise _wrong(path, table.line_num, "has too few columns", ",".join(columns))
        yield table.line_num, row


def _text(path: Path) -> str:
    """The text of a file. Raises `DataError` if it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError("labels cannot be read", [Problem(str(path), str(error))]) from error


def _wrong(path: Path, line: int, what: str, fix: str = "1,80048239,85092709") -> DataError:
    return DataError("labels cannot be read", [Problem(f"{path}, line {line}", what, fix)])
