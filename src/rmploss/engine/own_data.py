"""Data of a user's own in a recipe: `--data PATH`, and what follows from the files."""

from pathlib import Path

from rmploss.data import DATASETS, OwnFiles
from rmploss.data._class_folders import locate
from rmploss.data._label_files import holds_labels
from rmploss.data.recordings import READERS
from rmploss.recipes import Recipe, Use, Value

TONIC = "tonic:"
"""The beginning of `--data` that names a data set of the package tonic."""
LARGE = 128
"""From this side in pixels on, a recipe's images are photographs."""


def changes_for(recipe: Recipe, path: str, root: Path | None = None) -> dict[str, Value]:
    """The changes of a recipe that put data of a user in the place of its own.

    path: a folder; or "tonic:NAME", a data set that the installed tonic reads.
    root: the folder of the data sets, in which a folder is looked for, too.

    The size of the inputs and the augmentation stay those of the recipe.
    """
    name = recipe.data.name
    if path.startswith(TONIC):
        changes: dict[str, Value] = {"data": "tonic", "data.set": path.removeprefix(TONIC)}
        return {**changes, "data.size": DATASETS.make(name, **recipe.data.options).shape(1)[-1]}
    if holds_labels(locate(path, root), READERS):
        side = DATASETS.make(name, **recipe.data.options).shape(1)[-1]
        return {"data": "event-trials", "data.path": path, "data.size": side}
    if "path" in DATASETS.options(name):
        return {"data.path": path}
    before = DATASETS.make(name, **recipe.data.options)
    side = before.shape(1)[-1]
    if before.temporal:
        return {"data": "event-folder", "data.path": path, "data.size": side}
    changes = {"data": "folder", "data.path": path, "data.size": side}
    kept = DATASETS.complete(name, recipe.data.options).get("augment")
    if side >= LARGE:
        changes["data.augment"] = "random-crop"
    elif isinstance(kept, str):
        changes["data.augment"] = kept
    return changes


def settle(recipe: Recipe, root: Path | None) -> Recipe:
    """The recipe with the options of its data that follow from the files: place and classes.

    root: the folder of the data sets; None: the default (`data.data_root`).
    A recipe with wrong options, or whose files lack, stays as it is; `build.check` says why.
    """
    part = recipe.data
    if DATASETS.problems(part.name, part.options):
        return recipe
    dataset = DATASETS.make(part.name, **part.options)
    if not isinstance(dataset, OwnFiles):
        return recipe
    return recipe.but(data=Use(part.name, {**part.options, **dataset.settled(root)}))


def notes_on_data(recipe: Recipe, root: Path | None) -> list[str]:
    """What is allowed in the files of a recipe's data and may not be meant, in sentences."""
    dataset = DATASETS.make(recipe.data.name, **recipe.data.options)
    return dataset.notes(root) if isinstance(dataset, OwnFiles) else []
