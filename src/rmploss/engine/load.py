"""Load the trained network of a run folder, or evaluate it."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from rmploss.data import Samples, data_root
from rmploss.engine import checkpoint, manifest, pack, run_data
from rmploss.engine.averaging import COUNT
from rmploss.engine.batches import RankBatches, open_splits
from rmploss.engine.build import check, make_dataset, make_network
from rmploss.engine.checkpoint import DamagedError, Loaded
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.execution import Execution, join
from rmploss.engine.hub import located
from rmploss.engine.listener import Listener
from rmploss.engine.precision import precision
from rmploss.engine.run import RunFolder
from rmploss.engine.training_state import averaged_tensors
from rmploss.engine.verify import RESULT, record_damages
from rmploss.errors import CheckpointError, DamagedRunError, Problem, UserError
from rmploss.lifecycle import evolve, fold
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe

OnOlder = Callable[[str, Sequence[Problem]], None]
"""Called with the checkpoint that was taken and the reasons why no newer one could be."""


def warn_of_older(taken: str, reasons: Sequence[Problem]) -> None:
    """Warn that an older checkpoint was loaded."""
    listed = "; ".join(f"{problem.where} {problem.what}" for problem in reasons)
    warnings.warn(f"loaded {taken}, an older checkpoint: {listed}", RuntimeWarning, stacklevel=4)


OnOtherData = Callable[[Mapping[str, str]], None]
"""Called with what differs between the data of a run and those of now (`run_data.changes`)."""


def warn_of_other_data(found: Mapping[str, str]) -> None:
    """Warn that a run is evaluated on other data than it was tested on."""
    listed = "; ".join(found.values())
    warnings.warn(f"the data are not those of the run: {listed}", RuntimeWarning, stacklevel=3)


def load_network(
    run_dir: str | Path,
    which: Literal["last", "best"] = "last",
    *,
    averaged: bool = False,
    on_older: OnOlder = warn_of_older,
) -> tuple[SpikingNetwork, Recipe]:
    """The network of a run in evaluation mode, on the CPU, and the run's recipe.

    run_dir: the run folder, a pack, or a pack's reference (`engine.hub`).
    which: the last checkpoint, or the one of the best test accuracy.
    averaged: take the averaged weights; `UserError` if the run has none.
    on_older: called if the last checkpoint is damaged and an older one is loaded instead; warns by
        default.

    Tensors are read after their SHA-256 was checked; nothing is unpickled. Raises `UserError` for a
    folder that is not a run, `CheckpointError` if no checkpoint verifies.
    """
    found = find_weights(run_dir, which, averaged=averaged, on_older=on_older)
    return found.network(), found.recipe


@dataclass(frozen=True)
class Weights:
    """The weights of a run at the end of an epoch, or within one.

    recipe: of the run.
    state: the model state.
    progress: n / N of that epoch, for modules that evolve.
    path: of the checkpoint, or the file of a pack.
    """

    recipe: Recipe
    state: dict[str, Tensor]
    progress: float
    path: Path

    def network(self) -> SpikingNetwork:
        """The recipe's network with these weights, in evaluation mode."""
        net = make_network(self.recipe, make_dataset(self.recipe))
        try:
            net.load_state_dict(self.state)
        except RuntimeError as error:
            reason = str(error).partition("\n")[2].strip() or str(error)
            problem = Problem(str(self.path), f"does not fit the network: {reason}")
            raise CheckpointError("a checkpoint of another network", [problem]) from None
        evolve(net, self.progress)
        return net.eval()


def find_weights(
    run_dir: str | Path,
    which: Literal["last", "best"] = "last",
    *,
    averaged: bool = False,
    on_older: OnOlder = warn_of_older,
) -> Weights:
    """The weights for `load_network`, whose arguments and errors it has."""
    folder = RunFolder.open(run_dir := located(run_dir))
    recipe = folder.recipe()
    if pack.is_pack(run_dir):
        return _packed(recipe, run_dir, which, averaged)
    if which == "last":
        loaded = checkpoint.load_latest(run_dir, recipe_hash=folder.recipe_hash)
        reasons = why_older(folder, loaded)
        if reasons:
            on_older(loaded.path.name, reasons)
    else:
        loaded = checkpoint.load_step(run_dir, _best_step(folder), recipe_hash=folder.recipe_hash)
    state = _averaged(loaded, run_dir) if averaged else loaded.model_state
    return Weights(recipe, state, loaded.counters.progress(recipe.epochs), loaded.path)


def _packed(recipe: Recipe, path: Path, which: str, averaged: bool) -> Weights:
    """The weights of a pack, which holds those of one epoch."""
    if which != "last" or averaged:
        problem = Problem(str(path), "holds the weights of one epoch", "choose when you pack")
        raise UserError("a pack has no other weights", [problem])
    state, facts = pack.read(path)
    return Weights(recipe, state, facts.get("progress", 1.0), path / pack.WEIGHTS)


def _averaged(loaded: Loaded, run_dir: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint; `UserError` if there are none."""
    tensors = averaged_tensors(loaded)
    if not tensors:
        what, fix = "its recipe has no average of the weights", "leave out --averaged"
        raise UserError("no averaged weights", [Problem(str(run_dir), what, fix)])
    return {name: tensor for name, tensor in tensors.items() if name != COUNT}


def why_older(folder: RunFolder, loaded: Loaded) -> list[Problem]:
    """Why the newest checkpoint of a run is not the one that was loaded; empty: it is."""
    fix = f"rmploss verify {folder.path}"
    reasons = [Problem(name, reason, fix) for name, reason in loaded.rejected]
    names = checkpoint.set_aside(folder.path, newer_than=loaded.counters.step)
    reasons += [Problem(name, "was found damaged earlier", fix) for name in names]
    last = _last_step(folder)
    if not reasons and last is not None and last != loaded.counters.step:
        what = f"the run ended at step {last}, whose checkpoint is missing"
        reasons.append(Problem(loaded.path.name, what, fix))
    return reasons


def _last_step(folder: RunFolder) -> int | None:
    """The last step of a finished run, by its manifest or its metrics; None: not finished."""
    steps: list[int] = []
    try:
        files = manifest.read(folder.path)["files"]
        found = (checkpoint.step_of(name.split("/")[1]) for name in files if name.count("/") == 2)
        steps = [step for step in found if step is not None]
    except DamagedError:
        if (folder.path / RESULT).is_file():
            steps = [record["step"] for record in folder.metrics()]
    return max(steps, default=None)


def _best_step(folder: RunFolder) -> int:
    """The step of the most accurate epoch, from metrics.jsonl, which must be sound for that."""
    damages = record_damages(folder.path, ["metrics.jsonl"])
    if damages:
        problems = [damage.problem(folder.path) for damage in damages]
        raise DamagedRunError("the best epoch is not known", problems)
    epochs = [record for record in folder.metrics() if "test_accuracy" in record]
    if not epochs:
        raise UserError(f"{folder.path} has no best epoch: it has finished no epoch yet")
    return max(epochs, key=lambda record: record["test_accuracy"])["step"]


def tell_of_other_data(
    run_dir: str | Path,
    recipe: Recipe,
    splits: tuple[Samples, Samples],
    on_other_data: OnOtherData,
) -> None:
    """Call `on_other_data` if the test samples are not those that the run was tested on.

    splits: the training and test samples of now.
    """
    before = run_data.recorded(RunFolder.open(located(run_dir)).events())
    if before is None:
        return
    now = run_data.describe(recipe.data.name, *splits)
    if found := run_data.changes(before, now, ["test"]):
        on_other_data(found)


def evaluate_run(
    run_dir: str | Path,
    *,
    which: Literal["last", "best"] = "last",
    averaged: bool = False,
    folded: bool = False,
    potential: Literal["u_pre", "input"] = "u_pre",
    data_dir: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
    on_older: OnOlder = warn_of_older,
    on_other_data: OnOtherData = warn_of_other_data,
) -> Evaluation:
    """Evaluate the network of a run on its test split.

    run_dir, which, averaged, on_older: see `load_network`.
    folded: fold the network for inference first (`lifecycle.fold`).
    potential: of which the quantization error is measured, see `evaluate`.
    data_dir, device, workers: see `Execution`.
    on_other_data: called if the test samples are not those of the run; warns by default.

    Raises `UserError` and `CheckpointError` as `load_network`, and `UserError` for missing data.
    """
    execution = Execution(data_dir, device, workers)
    net, recipe = load_network(run_dir, which, averaged=averaged, on_older=on_older)
    with join(execution.device) as world:
        check(recipe, data_root(execution.data_dir))
        if folded:
            fold(net)
        train, samples = open_splits(
            recipe, make_dataset(recipe), execution.data_dir, Listener(), world.device
        )
        tell_of_other_data(run_dir, recipe, (train, samples), on_other_data)
        batches = RankBatches(recipe, world, execution.workers).test(samples)
        return evaluate(
            net.to(world.device),
            batches,
            world=world,
            potential=potential,
            precision=precision(recipe, world.device),
        )
