"""Plug-ins: modules outside of the package that register entries, named by a user or installed.

A plug-in is a module, or a Python file, that calls `rmploss.register`. It is named by `--import` or
by the variable RMPLOSS_PLUGINS, separated by commas; or a package that is installed names its
entries in the group "rmploss" of its entry points, as `dataset.mine = "package.module:Class"`.
Nothing of this is imported before a name is unknown, or listed.
"""

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rmploss.errors import Problem, UserError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "rmploss"
"""The group of entry points."""
POINTS = "entry_points.txt"
"""The file of a package's entry points."""
VARIABLE = "RMPLOSS_PLUGINS"
"""The variable that names modules."""
FIELDS = ("family", "name", "module", "file", "sha256", "package")
"""The fields of a `record`."""

_named: list[str] = []
_done: set[str] = set()
_remembered: dict[tuple[str, str], dict[str, str]] = {}


def use(names: Iterable[str]) -> None:
    """Name modules or files of plug-ins, beside those of the variable."""
    _named.extend(names)


def import_named() -> None:
    """Import every plug-in that was named, once. Raises `UserError` for one that cannot be."""
    words = os.environ.get(VARIABLE, "").split(",")
    for name in (*_named, *filter(None, map(str.strip, words))):
        if name in _done:
            continue
        _done.add(name)  # before the import, during which a plug-in may look up an entry
        try:
            _import(name)
        except BaseException:
            _done.discard(name)
            raise


def _import(name: str) -> None:
    file = Path(name).expanduser()
    is_file = file.suffix == ".py"
    if is_file and not file.is_file():
        raise UserError("a plug-in cannot be imported", [Problem(name, "no such file")])
    try:
        if is_file:
            _import_file(file.resolve())
        else:
            # Also from the current folder, as `python -m` does.
            sys.path.append(str(Path.cwd()))
            try:
                importlib.import_module(name)
            finally:
                sys.path.pop()
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _import_file(file: Path) -> None:
    """Import a file as the module of its name, unless that is what was imported already."""
    known = sys.modules.get(file.stem)
    if known is not None and Path(getattr(known, "__file__", None) or "").resolve() == file:
        return
    if known is not None:
        problem = f"a module {file.stem!r} is imported already"
        raise ImportError(f"{problem}: give the file another name")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError("no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[file.stem]
        raise


def _broken(where: str, error: BaseException) -> UserError:
    """The error of a plug-in, with the last line of its own code that ran."""
    if isinstance(error, UserError):  # its own call of `register`, for example
        return UserError(f"{where}: {error.title}", error.problems)
    ours = str(Path(__file__).parent)
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith((ours, "<"))
        and Path(frame.filename).parent.name != "importlib"
    ]
    place = f"   ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    reason = str(error).strip().partition("\n")[0]
    what = f"{type(error).__name__}: {reason}{place}"
    return UserError("a plug-in cannot be imported", [Problem(where, what)])


@cache
def _all_points() -> "tuple[EntryPoint, ...]":
    if not _may_be_named(sys.path):
        return ()
    from importlib.metadata import entry_points  # 15 ms, which few machines need

    return tuple(entry_points(group=GROUP))


def _may_be_named(places: Iterable[str]) -> bool:
    """False if `importlib.metadata` finds no entry of our group in these places; cheaper than it.

    places: those of `sys.path`. In archives, and where others find packages, there may be one.
    """
    if any(hasattr(f, "find_distributions") for f in sys.meta_path if f is not PathFinder):
        return True
    for place in map(str, places):
        try:
            names = os.listdir(place or ".")  # noqa: PTH208  as importlib.metadata does
        except NotADirectoryError:
            return True
        except OSError:
            continue
        infos = (name for name in names if name.lower().endswith((".dist-info", ".egg-info")))
        if place.lower().endswith(".egg") or any(_names_us(place, info) for info in infos):
            return True
    return False


def _names_us(place: str, info: str) -> bool:
    """True if the entry points of a package have our group; info: the folder of its metadata."""
    try:
        return f"[{GROUP}]".encode() in Path(place, info, POINTS).read_bytes()
    except OSError:  # most packages have none
        return False


def points(family: str, ours: Iterable[str]) -> "dict[str, EntryPoint]":
    """The installed entries of a family by name; nothing is imported.

    ours: the names of the package. Raises `UserError` for one of them, and for a name of two
    packages.
    """
    found: dict[str, EntryPoint] = {}
    for point in _all_points():
        kind, _, name = point.name.partition(".")
        if kind != family:
            continue
        if name in ours or (name in found and found[name].value != point.value):
            owner = "rmploss" if name in ours else _package(found[name])
            problem = Problem(
                f"{point.name} of {_package(point)}",
                f"is a name of {owner}",
                f"give it another name, or pip uninstall {_package(point)}",
            )
            raise UserError("two entries of one name", [problem])
        found[name] = point
    return found


def load(point: "EntryPoint") -> Any:
    """The entry of an installed package. Raises `UserError` if it cannot be imported."""
    try:
        return point.load()
    except (Exception, SystemExit) as error:
        raise _broken(f"{point.name} of {_package(point)}", error) from error


def _package(point: "EntryPoint") -> str:
    return point.dist.name if point.dist is not None else "an unknown package"


def record(family: str, name: str, entry: Any, point: "EntryPoint | None") -> dict[str, str]:
    """Where an entry came from, for the record of a run: see `FIELDS`.

    entry: a class, a function or an instance; point: of an installed package, else None.
    """
    source = entry if hasattr(entry, "__qualname__") else type(entry)
    try:
        file = inspect.getsourcefile(source) or ""
    except TypeError:
        file = ""
    known = bool(file) and Path(file).is_file()
    return {
        "family": family,
        "name": name,
        "module": getattr(source, "__module__", ""),
        "file": str(Path(file).resolve()) if known else "",
        "sha256": hashlib.sha256(Path(file).read_bytes()).hexdigest() if known else "",
        "package": _package(point) if point is not None else "",
    }


def records(stored: object) -> list[dict[str, str]]:
    """The records in a stored list; what is no record is left out."""
    return [
        dict(entry)
        for entry in (stored if isinstance(stored, list) else ())
        if isinstance(entry, Mapping) and all(isinstance(entry.get(f), str) for f in FIELDS)
    ]


def remember(stored: object) -> None:
    """Keep the records of a run, of which `how_to_get` speaks."""
    for entry in records(stored):
        _remembered[entry["family"], entry["name"]] = entry


def how_to_get(family: str, name: str) -> str:
    """What to type for an entry that a run had and this process lacks; "" if it is not known."""
    entry = _remembered.get((family, name))
    if entry is None:
        return ""
    if entry["package"]:
        return f"pip install {entry['package']}"
    place = entry["file"] or entry["module"]
    here = "" if not entry["file"] or Path(place).is_file() else ", which is not there any more"
    return f"add --import {place} (where the run had it from{here})"
