"""Train a recipe, or resume a run from its newest checkpoint.

All randomness is derived from (seed, purpose, epoch, index), so a resumed run equals an unbroken
one bit for bit.
"""

from pathlib import Path

from rmploss import ops
from rmploss.data import data_root
from rmploss.engine import manifest
from rmploss.engine.after_training import is_analyzed
from rmploss.engine.build import check
from rmploss.engine.capture import require
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.engine.execution import Execution, join, kernels, require_same_backend
from rmploss.engine.initial_weights import find_origin, initialize
from rmploss.engine.listener import Listener
from rmploss.engine.loop import RESULT, Loop
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.verify import digest_of, verify
from rmploss.errors import DamagedRunError, UserError
from rmploss.recipes import Recipe


def train(
    recipe: Recipe,
    runs_dir: Path,
    execution: Execution | None = None,
    listener: Listener | None = None,
    world: World | None = None,
) -> Path:
    """Train a recipe in a new run folder; returns its path.

    recipe: is checked first.
    runs_dir: the folder in which the run folder is created.
    execution: device, backend, workers, data; None: the defaults.
    listener: is notified of progress on rank 0.
    world: from `join`, for several runs in one process group; None: joined for this run alone.

    Raises `UserError` for a bad recipe or missing data, before anything is written;
    `InterruptedRunError` after a signal, with a checkpoint written; `NonFiniteError` if a loss or
    gradient is NaN or infinite, before it reaches the parameters.
    """
    execution, listener = execution or Execution(), listener or Listener()
    with ops.use_backend(execution.backend), join(execution.device, world) as world:
        root = data_root(execution.data_dir)
        remarks = check(recipe, root, world.size)
        if world.is_main:
            RunFolder.require_place(runs_dir, recipe.name)
        require_same_backend(world)
        require(execution.capture, world)
        origin = find_origin(recipe, execution.start)
        run = Loop(recipe, execution, world, listener if world.is_main else Listener())
        initialized = initialize(origin, run.net, recipe, run.train_samples, world)
        path = None
        if world.is_main:
            folder = RunFolder.create(
                runs_dir, recipe.name, recipe.to_json(), command=execution.command
            )
            path = folder.path
            for remark in remarks:
                listener.note(f"note: {remark}")
                folder.log_event("remark", text=remark)
            if initialized:
                folder.log_event("begin", **initialized)
        with kernels(world, execution.deterministic):
            return run.execute(Path(world.broadcast_text(str(path))), fresh=True)


def resume(
    path: Path, execution: Execution | None = None, listener: Listener | None = None
) -> Path:
    """Resume a run from its newest checkpoint that verifies; returns `path`.

    path: the run folder. A finished run stays as it is, except that a missing membrane.json,
        cost.json or manifest.json is written.
    execution, listener: see `train`, whose errors it raises; `DamagedRunError` if files of a
        finished run are damaged.
    """
    execution, listener = execution or Execution(), listener or Listener()
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    with ops.use_backend(execution.backend), join(execution.device) as world:
        if _is_complete(folder):
            if world.is_main:
                _finish(folder, listener)
            return path
        try:
            check(recipe, data_root(execution.data_dir), world.size)
        except UserError as error:  # such as an option that this version does not know
            title = f"{error.title}, written by {folder.written_by()}"
            raise UserError(title, error.problems) from None
        require_same_backend(world)
        require(execution.capture, world)
        run = Loop(recipe, execution, world, listener if world.is_main else Listener())
        with kernels(world, execution.deterministic):
            return run.execute(path, fresh=False)


def _is_complete(folder: RunFolder) -> bool:
    """True if a run is finished and nothing is left to compute; `DamagedRunError` for damage."""
    path = folder.path
    if not (path / RESULT).exists() and not manifest.exists(path):
        return False
    damages = verify(path).damages
    computed = (*manifest.COMPUTED, manifest.MANIFEST)
    lost = [damage for damage in damages if damage.file in computed and damage.found == "nothing"]
    rest = [damage for damage in damages if damage not in lost]
    if rest:
        problems = [damage.problem(path) for damage in rest]
        raise DamagedRunError(f"{path} is finished, and damaged since", problems)
    return is_analyzed(path) and (path / RESULT).is_file()


def _finish(folder: RunFolder, listener: Listener) -> None:
    """Write the manifest of a finished run that died before it had one, and say what was done."""
    path = folder.path
    if manifest.exists(path):
        listener.note(f"{path} is finished, all files are intact: nothing to do")
    elif folder.has_manifest():
        with folder.lock():
            manifest.write(path, digest_of(folder), versions())
        listener.note(f"{path} is finished: its manifest was missing and is written")
    else:
        what = f"{folder.written_by()} wrote no manifest"
        listener.note(f"{path} is finished: nothing to do ({what}: rmploss verify says more)")
    listener.end(summarize(folder.metrics()))
