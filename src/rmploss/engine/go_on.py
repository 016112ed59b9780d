"""Begin a run, or go on with it if its folder is there (`--resume auto`).

The same command can so be given again by a scheduler, or by `torchrun --max-restarts`. Rank 0
looks at the folder and decides; the other ranks do as it does.
"""

import shlex
from collections.abc import Callable, Iterator
from itertools import count, takewhile
from pathlib import Path
from typing import Literal

from rmploss.engine import checkpoint
from rmploss.engine.distributed import World
from rmploss.engine.fork import recipe_differences
from rmploss.engine.run import RunFolder, folder_name
from rmploss.engine.verify import RESULT
from rmploss.errors import Problem, UserError
from rmploss.recipes import Recipe

Way = Literal["begin", "begin again", "resume"]
"""A folder in which nothing was saved belongs to a process that died at its start: begin again."""
REFUSED = "error: "


def way_of(path: Path, recipe: Recipe, world: World) -> Way:
    """What to do about a run folder, the same on all ranks.

    path: the run folder, which may be missing.
    recipe: of the run that is asked for.

    Raises `UserError`, on all ranks, if the folder is no run, or one of another recipe.
    """
    return _agreed(lambda: _way_of(path, recipe), world)


def _way_of(path: Path, recipe: Recipe) -> Way:
    if not path.exists() and not path.is_symlink():
        return "begin"
    there = RunFolder.open(path).recipe()
    differences = recipe_differences(there, recipe)
    if differences:
        fix = f"another --name, or --fork {shlex.quote(str(path))}"
        problems = [Problem(f"{path}: {name}", v, fix) for name, v in differences.items()]
        raise UserError("the run in that folder has another recipe", problems)
    saved = checkpoint.saved(path) or checkpoint.set_aside(path, newer_than=-1)
    return "resume" if saved else "begin again"


def require_unsaved(path: Path) -> None:
    """Raise `UserError` if something was saved in the folder of a run that begins.

    path: the run folder, which this process has locked by now: when it looked first, it had not.
    """
    if checkpoint.saved(path):
        what, fix = "another process began it meanwhile, and saved", "--resume auto goes on with it"
        raise UserError("the run has begun", [Problem(str(path), what, fix)])


def folders_of(runs_dir: Path, recipe: Recipe) -> Iterator[Path]:
    """The folders of the runs of a recipe and seed, from the first to the newest.

    runs_dir: the folder of run folders.
    recipe: with its seed.
    """
    first = runs_dir / folder_name(recipe.name, recipe.to_json())
    names = (first if n == 1 else first.with_name(f"{first.name}-{n}") for n in count(1))
    return takewhile(Path.exists, names)


def newest(runs_dir: Path, recipe: Recipe) -> Path | None:
    """The newest of these folders in which something was saved; None: there is none."""
    saved = [path for path in folders_of(runs_dir, recipe) if checkpoint.saved(path)]
    return saved[-1] if saved else None


def is_finished(path: Path) -> bool:
    """True if a run has its result."""
    return (path / RESULT).exists()


def unfinished(runs_dir: Path, recipe: Recipe) -> str:
    """The words about an earlier run of this recipe and seed that could go on; "": there is none.

    runs_dir: the folder of run folders.
    recipe: of the run that is about to begin in a folder of its own.
    """
    found = ""
    for n, path in enumerate(folders_of(runs_dir, recipe), 1):
        if checkpoint.saved(path) and not is_finished(path):
            fix = f"--resume {shlex.quote(str(path))}"
            fix = f"--resume auto (or {fix})" if n == 1 else fix
            found = f"{path} is not finished: {fix} goes on with it"
    return found


def _agreed(decide: Callable[[], Way], world: World) -> Way:
    """The decision of rank 0; its error is raised on all ranks."""
    answer, error = "", None
    if world.is_main:
        try:
            answer = decide()
        except UserError as found:
            answer, error = f"{REFUSED}{found}", found
    answer = world.broadcast_text(answer)
    if error is not None:
        raise error
    if answer.startswith(REFUSED):
        raise UserError(answer.removeprefix(REFUSED))
    return answer  # pyright: ignore[reportReturnType]
