"""Files in class folders: `PATH/train/CLASS/FILE` and `PATH/test/CLASS/FILE`, or `PATH/CLASS/FILE`.

Without a folder of tests the split is by share, file by file: a file tests if the SHA-256 of its
class and name, as a number in 0..1, is below the share. So a file that is added moves no other.

Names that begin with "." and files of another kind are left out; links are followed.
"""

import hashlib
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, TypeVar

from rmploss.data._base import ProgressCallback, data_root
from rmploss.errors import DataError, Problem, UserError

TRAIN = ("train", "training")
TEST = ("test", "testing", "val", "valid", "validation")
"""The names of the folders of splits, in any case."""
MOST_SHOWN = 10
"""The largest number of bad files in one message."""
AT_ONCE_BYTES, EXPANSION = 2 * 2**30, 16
"""The memory for what is made of files that are read at once; how many bytes that are for one of a
file: an event of 5 bytes is one of 32 in memory, and takes up to 40 more while frames are made."""
T = TypeVar("T")


class Listed(NamedTuple):
    """The files of one split, by class and then by name.

    files: their paths.
    labels: the class of each.
    """

    files: list[Path]
    labels: list[int]


def locate(path: str, root: Path | None) -> Path:
    """The folder that `path` names: absolute, below the current folder, or below the data root.

    An absolute one that is not there is looked for in the data root under its last name, so that
    data which moved are found by --data-dir.
    """
    given = Path(path).expanduser()
    under_root = data_root(root) / (given.name if given.is_absolute() else given)
    return given if given.is_dir() or not under_root.is_dir() else under_root


def portable(path: str, root: Path | None) -> str:
    """`path` as a run records it: below the data root as it is, else absolute."""
    found = locate(path, root)
    in_root = not Path(path).is_absolute() and found == data_root(root) / path
    return path if in_root else str(found.absolute())


def split_folders(folder: Path) -> tuple[Path, Path] | None:
    """The folders of training and tests; None if the class folders are directly in `folder`.

    Raises `DataError` if there is one without the other.
    """
    found = {name.lower(): folder / name for name in visible_folders(folder)}
    train = next((found[name] for name in TRAIN if name in found), None)
    test = next((found[name] for name in TEST if name in found), None)
    if train is None and test is None:
        return None
    if train is None or test is None:
        here, lacks = (train, "test or val") if train is not None else (test, "train")
        what = f"is there, but no folder {lacks} beside it"
        fix = f"add it, or give {here} itself to have it split by share"
        raise DataError("the data have one split", [Problem(str(here), what, fix)])
    return train, test


def visible_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, sorted: a label is an index into this list."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.is_dir())
    return sorted(path.name for path in found if not path.name.startswith("."))


def files_in(folder: Path, suffixes: Collection[str]) -> Iterator[Path]:
    """The visible files of the suffixes in a folder and the folders below it, unsorted."""
    seen: set[Path] = set()  # a link may lead back to a folder above
    for place, folders, names in os.walk(folder, followlinks=True):
        here = Path(place).resolve()
        if here in seen:
            folders.clear()
            continue
        seen.add(here)
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith(".") and Path(name).suffix.lower() in suffixes:
                yield Path(place, name)


def layout_problems(
    path: str, root: Path | None, classes: Sequence[str], suffixes: Collection[str], kind: str
) -> list[Problem]:
    """What is wrong with folders; no file is opened.

    path, root: see `locate`.
    classes: those of the recipe; empty: not known yet.
    suffixes: of the files.
    kind: of the files, in the plural.
    """
    if not path:
        what = f"no folder of {kind} was named"
        return [Problem(f"data.path (below {data_root(root)})", what, "--data PATH")]
    folder = locate(path, root)
    if not folder.is_dir():
        what = "no such folder" + (", but a file" if folder.exists() else "")
        return [Problem(str(folder), what, "--data PATH, or --data-dir with the folder above it")]
    try:
        splits = split_folders(folder)
    except DataError as error:
        return list(error.problems)
    found = visible_folders(splits[0] if splits else folder)
    problems = [*_class_problems(folder, splits, found, suffixes, kind)]
    if not problems and classes and tuple(found) != tuple(classes):
        odd = sorted({*found} ^ {*classes})
        names = f", first {odd[0]!r}" if odd else ""
        what = f"has {len(found)} classes, the recipe {len(classes)}{names}"
        problems.append(Problem(str(folder), what, "the folder of the run, or a new run"))
    return problems


def _class_problems(
    folder: Path,
    splits: tuple[Path, Path] | None,
    found: list[str],
    suffixes: Collection[str],
    kind: str,
) -> Iterator[Problem]:
    place = splits[0] if splits else folder
    if len(found) < 2:
        direct = any(path.suffix.lower() in suffixes for path in place.iterdir())
        loose = f", and {kind} directly in it, whose classes are not known" if direct else ""
        what = f"{len(found)} class folders{loose}; at least 2 are needed"
        yield Problem(str(place), what, f"one folder for each class, with its {kind}")
        return
    endings = " ".join(sorted(suffixes))
    for name in found:
        if next(files_in(place / name, suffixes), None) is None:
            what = f"an empty class: no {kind} ({endings})"
            yield Problem(str(place / name), what, f"remove it, or put {kind} into it")
    if splits:
        for name in sorted({*visible_folders(splits[1])} - {*found}):
            what = f"a class that {splits[0].name} lacks"
            yield Problem(str(splits[1] / name), what, f"remove it, or add {splits[0] / name}")


def listed(
    folder: Path, classes: Sequence[str], suffixes: Collection[str], share: float
) -> tuple[Listed, Listed]:
    """The files of both splits.

    folder: from `locate`.
    classes: the names of the class folders, in the order of labels.
    suffixes: of the files.
    share: of files that test, where there is no folder of tests.

    Raises `DataError` for a class without training files, and if there is nothing to test.
    """
    splits = split_folders(folder)
    if splits:
        train, test = (all_of(place, classes, suffixes) for place in splits)
    else:
        everything = all_of(folder, classes, suffixes)
        train, test = _shared(everything, folder, share)
    counts = [train.labels.count(label) for label in range(len(classes))]
    problems = [
        Problem(name, "no file trains: all of them test", f"more files, or less than {share}")
        for name, count in zip(classes, counts, strict=True)
        if count == 0
    ]
    if not test.files:
        problems.append(Problem(str(folder), "no file tests", "more files, or a larger share"))
    if problems:
        raise DataError("the split leaves something empty", problems)
    return train, test


def all_of(folder: Path, classes: Sequence[str], suffixes: Collection[str]) -> Listed:
    """The files of the class folders in `folder`."""
    files: list[Path] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(files_in(folder / name, suffixes))
        files += found
        labels += [label] * len(found)
    return Listed(files, labels)


def _shared(everything: Listed, folder: Path, share: float) -> tuple[Listed, Listed]:
    """The files that train, and those that test."""
    parts = Listed([], []), Listed([], [])
    for file, label in zip(everything.files, everything.labels, strict=True):
        part = parts[tests(file.relative_to(folder).as_posix(), share)]
        part.files.append(file)
        part.labels.append(label)
    return parts


def tests(name: str, share: float) -> bool:
    """True if a file tests, by its name alone: "cat/photo1.jpg"."""
    number = int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8])
    return number < share * 2**64


def notes(train: Listed, test: Listed, classes: Sequence[str]) -> list[str]:
    """What is allowed and may not be meant: classes that are not tested, files that do both.

    Equal files are found by their SHA-256, among those of equal size.
    """
    untested = [name for label, name in enumerate(classes) if label not in {*test.labels}]
    found = [f"no file tests the class {', '.join(untested)}"] if untested else []
    pairs = _twins(train.files, test.files)
    if pairs:
        first = f"{pairs[0][0]} and {pairs[0][1]}"
        found.append(f"{len(pairs)} test files are training files, too, first {first}")
    return found


def _twins(train: Sequence[Path], test: Sequence[Path]) -> list[tuple[Path, Path]]:
    by_size: dict[int, list[Path]] = {}
    for file in train:
        if file.is_file():
            by_size.setdefault(file.stat().st_size, []).append(file)
    hashes: dict[int, dict[bytes, Path]] = {}
    pairs = []
    for file in test:
        if not file.is_file() or (size := file.stat().st_size) not in by_size:
            continue
        if size not in hashes:
            hashes[size] = {_hash(other): other for other in by_size[size]}
        if (twin := hashes[size].get(_hash(file))) is not None:
            pairs.append((twin, file))
    return pairs


def _hash(file: Path) -> bytes:
    return hashlib.sha256(file.read_bytes()).digest()


def _threads(files: Sequence[Path]) -> int:
    """How many files are read at once, at least one."""
    sizes = [file.stat().st_size for file in files if file.is_file()]
    fit = AT_ONCE_BYTES // (EXPANSION * max(sizes, default=0) + 1)
    return max(1, min(8, os.cpu_count() or 1, fit))


def read_all(
    files: Sequence[Path],
    read: Callable[[Path], T],
    progress: ProgressCallback | None,
    kind: str,
) -> list[T]:
    """Read files in several threads; the result is in their order.

    Fewer at once if they are large: what is made of a file (events of a recording, pixels of an
    image) stays in memory until it is read.

    Raises `DataError` that names up to `MOST_SHOWN` of those that cannot be read.
    """

    def attempt(file: Path) -> T | UserError:
        try:
            return read(file)
        except UserError as error:
            return error

    done: list[T] = []
    problems: list[Problem] = []
    with ThreadPoolExecutor(_threads(files)) as pool:
        for number, result in enumerate(pool.map(attempt, files)):
            if isinstance(result, UserError):
                problems += result.problems
            else:
                done.append(result)
            if progress is not None:
                progress(number + 1, len(files))
    if problems:
        more = len(problems) - MOST_SHOWN
        rest = [Problem("...", f"and {more} more")] if more > 0 else []
        title = f"{len(problems)} of {len(files)} {kind} cannot be read"
        raise DataError(title, [*problems[:MOST_SHOWN], *rest])
    return done
