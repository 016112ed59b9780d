"""Train a recipe, or resume a run from its newest checkpoint.

All randomness is derived from (seed, purpose, epoch, index), so a resumed run equals an unbroken
one bit for bit.
"""

from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rmploss import ops, store
from rmploss.data import data_root
from rmploss.engine import manifest
from rmploss.engine.after_training import is_analyzed
from rmploss.engine.build import check, resolve, weightless
from rmploss.engine.capture import require
from rmploss.engine.distributed import World
from rmploss.engine.environment import versions
from rmploss.engine.execution import (
    Execution,
    join,
    kernels,
    require_same_checkpoint,
    require_same_run,
)
from rmploss.engine.fork import begin, find_source, set_weights
from rmploss.engine.go_on import unfinished, way_of
from rmploss.engine.initial_weights import find_origin, initialize, said, with_source
from rmploss.engine.listener import Listener
from rmploss.engine.loop import RESULT, Loop
from rmploss.engine.origins import changed, origins
from rmploss.engine.own_data import notes_on_data, settle
from rmploss.engine.ranks import name_lost_ranks
from rmploss.engine.run import RunFolder, folder_name, require_free
from rmploss.engine.run_summary import summarize
from rmploss.engine.training_state import TrainingState
from rmploss.engine.verify import digest_of, verify
from rmploss.errors import DamagedRunError, UserError
from rmploss.recipes import Recipe


@dataclass(frozen=True)
class _New:
    """A run that begins: the arguments of `train` that say what and where."""

    recipe: Recipe
    runs_dir: Path
    name: str | None
    fork: Path | None
    again: bool = False
    """The folder of that name is there, of a process that died before its first checkpoint."""


def train(
    recipe: Recipe,
    runs_dir: Path,
    execution: Execution | None = None,
    listener: Listener | None = None,
    world: World | None = None,
    *,
    name: str | None = None,
    fork: Path | None = None,
    or_resume: bool = False,
) -> Path:
    """Train a recipe in a new run folder; returns its path.

    recipe: is checked first.
    runs_dir: the folder in which the run folder is created.
    execution: device, backend, workers, data; None: the defaults.
    listener: is notified of progress on rank 0.
    world: from `join`, for several runs in one process group; None: joined for this run alone.
    name: of the run folder, which must not exist; None: made of recipe, seed and hash.
    fork: the run folder from whose newest checkpoint training begins, see `engine.fork`.
    or_resume: resume the run of that name, or the first one of this recipe and seed, if it has
        begun. All ranks do what rank 0 finds.

    Raises `UserError` for a bad recipe or missing data, before anything is written, and with
    `or_resume` if the folder holds a run of another recipe; `InterruptedRunError` after a signal,
    with a checkpoint written; `NonFiniteError` if a loss or gradient is NaN or infinite, before it
    reaches the parameters.
    """
    execution, listener = execution or Execution(), listener or Listener()
    with suppress(UserError):  # of an option out of range, which `check` tells with the others
        recipe = settle(recipe, data_root(execution.data_dir))
    if fork is None:
        recipe = with_source(recipe, execution.start)
    new = _New(recipe, runs_dir, name, fork)
    with ops.use_backend(execution.backend), _join(execution, world) as world:
        if or_resume:
            name = name or folder_name(recipe.name, recipe.to_json())
            way = way_of(runs_dir / name, recipe, world)
            if way == "resume":
                return resume(runs_dir / name, execution, listener, world)
            new = replace(new, name=name, again=way == "begin again")
        return _begin(new, execution, listener, world)


def _begin(new: _New, execution: Execution, listener: Listener, world: World) -> Path:
    """Train a new run; returns its path."""
    recipe = new.recipe
    require_same_run(world, **recipe.to_json())
    root = data_root(execution.data_dir)
    remarks = check(recipe, root, world.size) + notes_on_data(recipe, root)
    if world.is_main:
        _require_place(new, listener)
    require(execution.capture, world)
    source = None if new.fork is None else find_source(new.fork, recipe)
    if source is not None:
        require_same_checkpoint(world, source.loaded)
        if source.counters.epoch:
            remarks = list(dict.fromkeys(remarks + weightless(recipe, source.counters.epoch)))
    origin = find_origin(recipe, execution.start) if source is None else None
    listener = listener if world.is_main else Listener()
    run = Loop(recipe, execution, world, listener)
    event = {}
    if origin is not None:
        event = initialize(origin, run.net, recipe, run.train_samples, world)
    if source is not None:
        set_weights(source, run.net)
        event = source.event(run.batches)
        other = source.other_data(run.data)
        event |= {"other_data": other} if other else {}
        remarks += [
            f"the {split} data are not those of {new.fork}: {what}" for split, what in other.items()
        ]
    path = None
    if world.is_main:
        folder = _folder(new, execution)
        path = folder.path
        with folder.lock():  # a process that is taken for dead may hold it
            if new.again:
                folder.log_event("begin again", command=list(execution.command))
            for remark in remarks:
                listener.note(f"note: {remark}")
                folder.log_event("remark", text=remark)
            if event:
                folder.log_event("fork" if source else "begin", **event)
        if words := said(event):
            listener.note(words)
    for line in source.notes(run.batches) if source else ():
        listener.note(line)
    with kernels(world, execution.deterministic), _named(world, run):
        path = Path(world.broadcast_text(str(path)))
        return run.execute(path, begin=partial(begin, source) if source else _as_made)


def _require_place(new: _New, listener: Listener) -> None:
    """Raise `UserError` unless the folder of a new run can be made; name a run that could go on."""
    RunFolder.require_place(new.runs_dir, new.name or new.recipe.name)
    if new.name and not new.again:
        require_free(new.runs_dir / new.name)
    if not new.name and not new.fork and (words := unfinished(new.runs_dir, new.recipe)):
        listener.note(f"note: {words}")


def _folder(new: _New, execution: Execution) -> RunFolder:
    """The folder of a run that begins."""
    if new.again and new.name:
        return RunFolder.open(new.runs_dir / new.name)
    return RunFolder.create(
        new.runs_dir,
        new.recipe.name,
        resolve(new.recipe).to_json(),
        command=execution.command,
        exactly=new.name,
        plugged=origins(new.recipe),
        given=new.recipe.to_json(),
    )


def _as_made(state: TrainingState) -> None:
    """Begin with the state that was made for the recipe."""


def resume(
    path: Path,
    execution: Execution | None = None,
    listener: Listener | None = None,
    world: World | None = None,
) -> Path:
    """Resume a run from its newest checkpoint that verifies; returns `path`.

    path: the run folder. A finished run stays as it is, except that a missing predictions.json,
        membrane.json, cost.json or manifest.json is written.
    execution, listener, world: see `train`, whose errors it raises; `DamagedRunError` if files of a
        finished run are damaged.
    """
    execution, listener = execution or Execution(), listener or Listener()
    folder = RunFolder.open(path)
    recipe = folder.recipe()
    with ops.use_backend(execution.backend), _join(execution, world) as world:
        require_same_run(world, **folder.stored_recipe())
        if _is_complete(folder):
            if world.is_main:
                _finish(folder, listener)
            return path
        try:
            check(recipe, data_root(execution.data_dir), world.size)
        except UserError as error:  # such as an option that this version does not know
            title = f"{error.title}, written by {folder.written_by()}"
            raise UserError(title, error.problems) from None
        require(execution.capture, world)
        run = Loop(recipe, execution, world, listener if world.is_main else Listener())
        for sentence in changed(recipe, folder.plugged()) if world.is_main else ():
            listener.note(f"note: {sentence}")
        with kernels(world, execution.deterministic), _named(world, run):
            return run.execute(path, begin=None)


def _join(execution: Execution, world: World | None) -> AbstractContextManager[World]:
    """Join the process group as the execution says; `world` is that of an outer block."""
    return join(execution.device, world, execution.timeout_s, deterministic=execution.deterministic)


def _named(world: World, run: Loop) -> AbstractContextManager[None]:
    """Name the ranks that are lost in the block, and the last step of all."""
    return name_lost_ranks(world.meeting, lambda: run.state.counters.step)


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
    written = all(damage.file not in manifest.COMPUTED for damage in lost)
    return written and is_analyzed(path) and (path / RESULT).is_file()


def _finish(folder: RunFolder, listener: Listener) -> None:
    """Write the manifest of a finished run that died before it had one, and say what was done."""
    path = folder.path
    if manifest.exists(path):
        listener.note(f"{path} is finished, all files are intact: nothing to do")
    elif folder.has_manifest():
        with folder.lock():
            store.try_twice(lambda: manifest.write(path, digest_of(folder), versions()))
        listener.note(f"{path} is finished: its manifest was missing and is written")
    else:
        what = f"{folder.written_by()} wrote no manifest"
        listener.note(f"{path} is finished: nothing to do ({what}: rmploss verify says more)")
    listener.end(summarize(folder.metrics()))
