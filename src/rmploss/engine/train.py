"""Training a recipe from its first epoch or from a checkpoint.

Everything random is derived from (seed, purpose, epoch, index), so a run that was interrupted and
resumed is, bit for bit, the run that was not.
"""

from pathlib import Path

from rmploss import ops
from rmploss.data import data_root
from rmploss.engine.after_training import is_analyzed
from rmploss.engine.build import check
from rmploss.engine.distributed import World
from rmploss.engine.execution import Execution, join, require_same_backend
from rmploss.engine.initial_weights import find_origin, initialize
from rmploss.engine.listener import Listener
from rmploss.engine.loop import RESULT, Loop
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.errors import UserError
from rmploss.recipes import Recipe


def train(
    recipe: Recipe,
    runs_dir: Path,
    execution: Execution | None = None,
    listener: Listener | None = None,
    world: World | None = None,
) -> Path:
    """Train a recipe in a new run folder, whose path is returned.

    world: that of `join`, for several runs one after the other; None: joined for this run alone.
    Raises `UserError` before anything is written if the recipe or its data are not right,
    `InterruptedRunError` after a signal, with a checkpoint written, and `NonFiniteError` if a loss
    or a gradient is NaN or infinite, before it reaches the parameters.
    """
    execution, listener = execution or Execution(), listener or Listener()
    with ops.use_backend(execution.backend), join(execution.device, world) as world:
        root = data_root(execution.data_dir)
        check(recipe, root, world.size)
        require_same_backend(world)
        origin = find_origin(recipe, execution.start)
        run = Loop(recipe, execution, world, listener if world.is_main else Listener())
        initialized = initialize(origin, run.net, recipe, run.train_samples, world)
        path = None
        if world.is_main:
            plain = recipe.to_json()
            folder = RunFolder.create(runs_dir, recipe.name, plain, command=execution.command)
            path = folder.path
            if initialized:
                folder.log_event("begin", **initialized)
        return run.execute(Path(world.broadcast_text(str(path))), fresh=True)


def resume(
    path: Path, execution: Execution | None = None, listener: Listener | None = None
) -> Path:
    """Go on with an interrupted run from its newest checkpoint that verifies; returns its path.

    A finished run does not change, except that a missing membrane.json or cost.json is written.
    """
    execution, listener = execution or Execution(), listener or Listener()
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    with ops.use_backend(execution.backend), join(execution.device) as world:
        if (path / RESULT).is_file() and is_analyzed(path):
            if world.is_main:
                listener.note(f"{path} is finished: nothing to do")
                listener.end(summarize(folder.metrics()))
            return path
        try:
            check(recipe, data_root(execution.data_dir), world.size)
        except UserError as error:  # such as an option that this version does not know
            title = f"{error.title}, written by {folder.written_by()}"
            raise UserError(title, error.problems) from None
        require_same_backend(world)
        run = Loop(recipe, execution, world, listener if world.is_main else Listener())
        return run.execute(path, fresh=False)
