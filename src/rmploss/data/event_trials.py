"""Long recordings of yours with a table of labels beside each, as frames: DVS128 Gesture's layout.

    PATH/user01_lab.aedat           the recording, in any format of `recordings.py`
    PATH/user01_lab_labels.csv      its parts and their classes (`_label_files.py`)

Every part is a sample, or with `window_ms` one sample a window. All parts of a recording are in one
split: that of the lists `trials_to_train.txt` and `trials_to_test.txt`, of the folders
`PATH/train` and `PATH/test`, or else by a hash of the recording's name (`test_share`).
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from rmploss.data import _class_folders as class_folders
from rmploss.data import _label_files as label_files
from rmploss.data._base import ProgressCallback, Splits, data_root, ensure_complete
from rmploss.data._event_frames import WindowedFrames
from rmploss.data._label_files import Trial
from rmploss.data._own_folder import OwnFolder
from rmploss.data._windows import Piece, split_pieces
from rmploss.data.events import Events
from rmploss.data.recordings import READERS
from rmploss.errors import DataError, Problem, UserError

SILENT_US = 100_000
"""So many microseconds a part may begin before the first event, or end after the last: a recording
may be silent there."""


@dataclass(frozen=True, kw_only=True)
class EventTrials(OwnFolder, WindowedFrames):
    """Recordings of yours, each with a table of labels beside it, as T frames.

    path, classes, test_share: see `OwnFolder`.
    sensor ... stride_ms: see `WindowedFrames`.
    """

    name: ClassVar[str] = "event-trials"
    kind: ClassVar[str] = "recordings"
    suffixes: ClassVar[Collection[str]] = READERS.keys()

    def _problems(self) -> list[Problem]:
        return self.frame_problems()

    def missing(self, root: Path | None) -> list[Problem]:
        """What is wrong with the folder and its label files; no recording is read."""
        return self._missing(root)

    def notes(self, root: Path | None) -> list[str]:
        """The classes that no recording tests, recordings in no split, and `sensor_notes`."""
        train, test = self._files(root)
        tested = {trial.name for file in test for trial in label_files.trials(file)}
        names, order = self._named(root)
        untested = [names.get(name, name) for name in order if name not in tested]
        found = [f"no recording tests the class {', '.join(untested)}"] if untested else []
        places = {file.parent for file in (*train, *test)}
        bare = [
            path
            for place in sorted(places)
            for path in sorted(place.iterdir())
            if path.suffix.lower() in self.suffixes and not label_files.label_file(path).is_file()
        ]
        if bare:
            found.append(f"{len(bare)} recordings have no label file, first {bare[0]}")
        return found + self._notes_on_lists(root) + self.sensor_notes([*train, *test])

    def _notes_on_lists(self, root: Path | None) -> list[str]:
        """The recordings that are in neither list, and the names there without a recording."""
        folder = class_folders.locate(self.path, root)
        lists = (
            None
            if class_folders.split_folders(folder)
            else label_files.listed_splits(folder, self.suffixes)
        )
        if not lists:
            return []
        here = {file.stem for file in label_files.recordings_in(folder, self.suffixes)}
        listed, where = lists[0] | lists[1], " and ".join(label_files.SPLITS)
        return [
            f"{len(names)} {what}, first {min(names)}"
            for names, what in (
                (here - listed, f"recordings are in none of {where}, and are left out"),
                (listed - here, f"names in {where} have no recording with a label file"),
            )
            if names
        ]

    def open(
        self, root: Path | None, *, seed: int, T: int, progress: ProgressCallback | None = None
    ) -> Splits:
        """Both splits: uint8 frames in memory, or read at access."""
        ensure_complete(self, root)
        train, test = self._files(root)
        if not train or not test:
            word = "trains" if not train else "tests"
            fix = "more recordings, or another data.test_share"
            where = str(class_folders.locate(self.path, root))
            problem = Problem(where, f"no recording {word}", fix)
            raise DataError("the split leaves something empty", [problem])
        _, order = self._named(root)
        labels = {name: label for label, name in enumerate(order)}
        tests = {*test}
        return split_pieces(
            self,
            [*train, *test],
            lambda path, events: self._pieces(path, events, labels, path in tests),
            T,
            seed,
            progress,
        )

    def _pieces(
        self, path: Path, events: Events, labels: Mapping[str, int], tests: bool
    ) -> list[Piece]:
        pieces = []
        for trial in label_files.trials(path):
            _require_within(path, trial, events)
            part = (trial.start, trial.stop)
            windows = [part]
            if self.window_ms is not None:
                windows = self.windows(path, events, overlap=not tests, within=part)
            pieces += [Piece(path, window, labels[trial.name], tests) for window in windows]
        return pieces

    def _missing(self, root: Path | None) -> list[Problem]:
        if not self.path:
            what = "no folder of recordings was named"
            return [Problem(f"data.path (below {data_root(root)})", what, "--data PATH")]
        folder = class_folders.locate(self.path, root)
        if not folder.is_dir():
            fix = "--data PATH, or --data-dir with the folder above it"
            return [Problem(str(folder), "no such folder", fix)]
        try:
            found = self._found(root)
        except UserError as error:
            return list(error.problems)
        if len(found) < 2:
            what = f"{len(found)} classes in its label files; at least 2 are needed"
            fix = f"beside NAME.aedat a file NAME{label_files.ENDING}"
            return [Problem(str(folder), what, fix)]
        if self.classes and found != self.classes:
            odd = sorted({*found} ^ {*self.classes})
            what = f"has {len(found)} classes, the recipe {len(self.classes)}"
            what += f", first {odd[0]!r}" if odd else ""
            return [Problem(str(folder), what, "the folder of the run, or a new run")]
        return []

    def _found(self, root: Path | None) -> tuple[str, ...]:
        names, order = self._named(root)
        found = tuple(names.get(name, name) for name in order)
        for index, name in enumerate(found):
            if name in found[:index]:
                first = order[found.index(name)]
                what = f"gives {first} and {order[index]} the same name, {name}"
                where = str(class_folders.locate(self.path, root) / label_files.MAPPING)
                problem = Problem(where, what, "a name for each")
                raise DataError("two classes of one name", [problem])
        return found

    def _named(self, root: Path | None) -> tuple[dict[str, str], list[str]]:
        """The names of the classes as the label files write them, and those in order of labels."""
        train, test = self._files(root)
        written = {trial.name for file in (*train, *test) for trial in label_files.trials(file)}
        folder = class_folders.locate(self.path, root)
        names = label_files.names_of_classes(folder)
        label_files.require_one_spelling(folder, {*written, *names})
        return names, label_files.in_order(written)

    def _files(self, root: Path | None) -> tuple[list[Path], list[Path]]:
        """The recordings that train, and those that test."""
        folder = class_folders.locate(self.path, root)
        splits = class_folders.split_folders(folder)
        if splits:
            train, test = (label_files.recordings_in(part, self.suffixes) for part in splits)
            return train, test
        everything = label_files.recordings_in(folder, self.suffixes)
        lists = label_files.listed_splits(folder, self.suffixes)
        if lists:
            train, test = ([f for f in everything if f.stem in names] for names in lists)
            return train, test
        tests = [file for file in everything if class_folders.tests(file.name, self.test_share)]
        return [file for file in everything if file not in tests], tests


def _require_within(path: Path, trial: Trial, events: Events) -> None:
    """Raise `DataError` for a part that leaves the recording, or holds no event."""
    first, last = int(events.t[0]), int(events.t[-1])
    where = f"{label_files.label_file(path)}: {trial.start} to {trial.stop} us"
    if trial.start < first - SILENT_US or trial.stop > last + SILENT_US:
        what = f"leaves the recording, whose events are from {first} to {last} us"
        problem = Problem(where, what, "the times of the events, in microseconds")
        raise DataError("labels of another recording", [problem])
    if not len(events.between(trial.start, trial.stop)):
        problem = Problem(where, "no event lies in it", "the times of the events, or no such line")
        raise DataError("labels without events", [problem])
