"""Data sets of the package tonic as frames: `--data tonic:NMNIST`, or a tonic object of yours.

    import rmploss, tonic
    from rmploss.data.tonic_set import tonic_set

    made = tonic_set("mine", lambda root, train: tonic.datasets.NMNIST(root, train=train))
    rmploss.register.dataset("mine", made)

A tonic data set is a sequence of (events, label), where events is a structured array with fields
x, y, t (microseconds) and p. Samples are read at access. What tonic downloads by the method
`download` of its class, which most of its sets do, is refused when it is not there; an object of
yours does what it does.
"""

import importlib
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from rmploss.data import _class_folders as class_folders
from rmploss.data._base import DataSet, ProgressCallback, Splits, data_root, ensure_complete
from rmploss.data._event_frames import EventFrames
from rmploss.data._in_memory import PrepareFrames
from rmploss.data._own_folder import AtAccess, share_problems
from rmploss.data.events import Events
from rmploss.errors import DataError, Problem, UserError, unknown

Make = Callable[[str, bool], Any]
"""From (folder of the data sets, True for the training split) to a tonic data set."""
_INSTALL = "pip install tonic"


@dataclass(frozen=True, kw_only=True)
class TonicSet(EventFrames):
    """A data set that the installed tonic reads, as T frames.

    set: its name in `tonic.datasets`.
    classes: their names, which a run records; empty: those of tonic, else the labels.
    sensor: (W, H) in pixels, which a run records; empty: that of tonic.
    test_share: of the samples, where tonic has no split.
    size ... augment: see `EventFrames`.
    """

    set: str = ""
    classes: tuple[str, ...] = ()
    sensor: tuple[int, ...] = ()
    test_share: float = 0.2

    name: ClassVar[str] = "tonic"
    make: ClassVar[Make | None] = None
    """Of a set that `tonic_set` made."""

    def __post_init__(self) -> None:
        problems = self.frame_problems()
        if not self.sensor:  # not known yet
            problems = [problem for problem in problems if "sensor" not in problem.where]
        problems += share_problems(self.test_share)
        if problems:
            raise UserError(f"cannot make data set {self.name!r}", problems)

    @property
    def path(self) -> str:
        """The name of the set."""
        return self.set or self.name

    @property
    def num_classes(self) -> int:
        """How many classes there are; 2 as long as it is not known."""
        return len(self.classes) or 2

    def shape(self, T: int) -> tuple[int, ...]:
        """`(T, 2, size, size)`, see `EventFrames`."""
        if self.size is None and not self.sensor:
            problem = Problem("data-set.sensor", "is not known yet", "data.sensor=(W,H)")
            raise UserError("frames of no size", [problem])
        return super().shape(T)

    def settled(self, root: Path | None) -> dict[str, Any]:
        """The options that follow from the data: sensor and classes."""
        if self.missing(root):
            return {}
        train = self._parts(root)[0]
        return {"classes": self.classes or _classes(train), "sensor": self._sensor_of(train)}

    def notes(self, root: Path | None) -> list[str]:
        """Nothing."""
        return []

    def missing(self, root: Path | None) -> list[Problem]:
        """The package, the name, or the files; `_kind` says what is not downloaded."""
        folder = data_root(root)
        if self.make is None and not self.set:
            return [Problem(f"data.set (in {folder})", "no set was named", "--data tonic:NMNIST")]
        try:
            train, test = self._parts(root)
            self._sensor_of(train)
        except UserError as error:
            return list(error.problems)
        empty = not len(train) or (test is not None and not len(test))
        return [Problem(f"{self.path} in {folder}", "holds no samples")] if empty else []

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits, read at access; without a split of tonic's, by a hash of the index."""
        ensure_complete(self, root)
        train, test = self._parts(root)
        sensor = self._sensor_of(train)
        classes = self.classes or _classes(train)
        prepare = PrepareFrames(self.augment), PrepareFrames(augment=False)
        parts = [(train, None), (test, None)]
        if test is None:
            chosen = [class_folders.tests(str(i), self.test_share) for i in range(len(train))]
            parts = [(train, [i for i, t in enumerate(chosen) if t == wanted]) for wanted in (0, 1)]
        made = []
        for (part, kept), how in zip(parts, prepare, strict=True):
            labels = _labels(part, classes, self.path)
            indices = list(range(len(part))) if kept is None else kept
            stored = partial(self._frames, part, sensor, T)
            made.append(AtAccess((indices, [labels[i] for i in indices]), stored, how, seed))
        return Splits(*made)

    def _frames(self, part: Any, sensor: tuple[int, int], T: int, index: int) -> Tensor:
        """The frames of a sample, uint8 `[T, C, H, W]`; sensor: (W, H)."""
        where = f"{self.path}, sample {index}"
        kind = EventFrames(
            sensor=sensor,
            size=self.size,
            frames=self.frames,
            integrate=self.integrate,
            polarity=self.polarity,
        )
        events = kind.checked(where, _events(part[index][0], where))
        return kind.cut(events, [None], T)[0]

    def _parts(self, root: Path | None) -> tuple[Any, Any]:
        """The training and the test part; None for the latter if tonic has no split."""
        folder = str(data_root(root))
        if self.make is not None:
            return tuple(self._made(partial(self.make, folder, train)) for train in (True, False))
        kind = self._kind()
        parameters = inspect.signature(kind).parameters
        if "train" in parameters:
            return tuple(self._made(partial(kind, folder, train=train)) for train in (True, False))
        if "split" in parameters:
            words = ("train", "test")
            return tuple(self._made(partial(kind, folder, split=word)) for word in words)
        return self._made(partial(kind, folder)), None

    def _kind(self) -> Any:
        """The class of the set, whose method `download` refuses.

        A class that downloads by other means, with none of its own, does so.
        """
        try:
            sets = importlib.import_module("tonic.datasets")
        except ImportError as error:
            problem = Problem(f"tonic:{self.set}", str(error), _INSTALL)
            raise UserError("tonic is not installed", [problem]) from error
        names = [name for name in dir(sets) if inspect.isclass(getattr(sets, name))]
        if self.set not in names:
            raise UserError("unknown data set of tonic", [unknown("data.set", self.set, names)])
        kind = getattr(sets, self.set)

        def download(_: Any) -> None:
            raise _NotThereError

        # Of the same name, which tonic takes for that of the folder.
        return type(kind.__name__, (kind,), {"download": download})

    def _made(self, make: Callable[[], Any]) -> Any:
        """A part. Raises `DataError` for one that is not there, or that tonic cannot open."""
        where = f"tonic:{self.path}"
        try:
            return make()
        except _NotThereError:
            code = f"import tonic; tonic.datasets.{self.set}(FOLDER)"
            fix = f'let tonic download it: python -c "{code}"'
            what = "is not in the folder of the data sets"
            raise DataError("a data set is missing", [Problem(where, what, fix)]) from None
        except (Exception, SystemExit) as error:
            what = f"cannot be opened: {type(error).__name__}: {error}"
            raise DataError("a data set is missing", [Problem(where, what)]) from error

    def _sensor_of(self, part: Any) -> tuple[int, int]:
        """(W, H) of the sensor."""
        size = self.sensor or getattr(part, "sensor_size", None)
        if not size or len(size) < 2:
            fix = "data.sensor=(W,H)"
            what = "does not say how large its sensor is"
            raise DataError("unknown sensor", [Problem(f"tonic:{self.path}", what, fix)])
        return int(size[0]), int(size[1])


class _NotThereError(Exception):
    """A download was asked for."""


def tonic_set(name: str, make: Make) -> type[DataSet]:
    """A data set of tonic objects, for `rmploss.register.dataset(name, ...)`.

    name: under which it is registered.
    make: from the folder of the data sets, and True for the training split, to a tonic data set:
        `lambda root, train: tonic.datasets.NMNIST(root, train=train)`.
    """
    members = {"name": name, "make": staticmethod(make), "__module__": make.__module__}
    kind: Any = type("TonicSet", (TonicSet,), members)
    return kind


def _targets(part: Any) -> Sequence[Any]:
    """The labels as the set has them; without a list they are read sample by sample."""
    targets = getattr(part, "targets", None)
    if targets is not None and len(targets) == len(part):
        return list(targets)
    return [part[index][1] for index in range(len(part))]


def _classes(part: Any) -> tuple[str, ...]:
    """The names of the classes in the order of their labels."""
    targets = {*_targets(part)}
    if all(isinstance(target, str) for target in targets):
        return tuple(sorted(targets))
    most = max(map(int, targets))
    named = tuple(map(str, getattr(part, "classes", ())))
    if isinstance(getattr(part, "classes", None), dict):
        named = tuple(str(n) for n, _ in sorted(part.classes.items(), key=lambda pair: pair[1]))
    return named if len(named) > most else tuple(map(str, range(most + 1)))


def _labels(part: Any, classes: Sequence[str], where: str) -> list[int]:
    """The class of every sample. Raises `DataError` for one that is none of `classes`."""
    order = {name: label for label, name in enumerate(classes)}
    targets = _targets(part)
    labels = [order.get(t, -1) if isinstance(t, str) else int(t) for t in targets]
    for index, label in enumerate(labels):
        if not 0 <= label < len(classes):
            what = f"has the label {targets[index]!r}, none of {len(classes)} classes"
            problem = Problem(f"{where}, sample {index}", what, "classes that training has, too")
            raise DataError("a label of another set", [problem])
    return labels


def _events(rows: Any, where: str) -> Events:
    """The events of a structured array. Raises `DataError` for another one."""
    names = getattr(getattr(rows, "dtype", None), "names", None) or ()
    lacking = [name for name in "xytp" if name not in names]
    if lacking or not len(rows):
        what = f"has no field {lacking[0]}, but {', '.join(names) or 'none'}" if lacking else ""
        problem = Problem(where, what or "holds no events", "a set of an event camera")
        raise DataError("a sample is no recording", [problem])
    t, x, y, p = (np.asarray(rows[name]).astype(np.int64) for name in "txyp")
    return Events(t=t, x=x, y=y, p=np.where(p < 0, 0, p))
