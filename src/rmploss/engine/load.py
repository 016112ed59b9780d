"""Load the trained network of a run folder, or evaluate it."""

from pathlib import Path
from typing import Literal

from torch import Tensor

from rmploss.data import data_root
from rmploss.engine import checkpoint
from rmploss.engine.averaging import COUNT
from rmploss.engine.batches import open_splits, test_batches
from rmploss.engine.build import check, make_dataset, make_network
from rmploss.engine.checkpoint import Loaded
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.execution import Execution, join
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.engine.training_state import averaged_tensors
from rmploss.errors import Problem, UserError
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe


def load_network(
    run_dir: Path, which: Literal["last", "best"] = "last", *, averaged: bool = False
) -> tuple[SpikingNetwork, Recipe]:
    """The network of a run in evaluation mode, on the CPU, and the run's recipe.

    run_dir: the run folder.
    which: the last checkpoint, or the one of the best test accuracy.
    averaged: take the averaged weights; `UserError` if the run has none.

    Tensors are read after their SHA-256 was checked; nothing is unpickled. Raises `UserError` for a
    folder that is not a run, `CheckpointError` if no checkpoint verifies.
    """
    folder = RunFolder.open(run_dir)
    recipe = folder.recipe()
    if which == "last":
        loaded = checkpoint.load_latest(run_dir, recipe_hash=folder.recipe_hash)
    else:
        metrics = folder.metrics()
        if not metrics:
            raise UserError(f"{run_dir} has no best epoch: it has finished no epoch yet")
        best = summarize(metrics)["best_epoch"]
        step = next(record["step"] for record in metrics if record["epoch"] == best)
        loaded = checkpoint.load_step(run_dir, step, recipe_hash=folder.recipe_hash)
    net = make_network(recipe, make_dataset(recipe))
    net.load_state_dict(_averaged(loaded, run_dir) if averaged else loaded.model_state)
    return net.eval(), recipe


def _averaged(loaded: Loaded, run_dir: Path) -> dict[str, Tensor]:
    """The averaged weights of a checkpoint; `UserError` if there are none."""
    tensors = averaged_tensors(loaded)
    if not tensors:
        what, fix = "its recipe has no average of the weights", "leave out --averaged"
        raise UserError("no averaged weights", [Problem(str(run_dir), what, fix)])
    return {name: tensor for name, tensor in tensors.items() if name != COUNT}


def evaluate_run(
    run_dir: Path,
    *,
    which: Literal["last", "best"] = "last",
    averaged: bool = False,
    folded: bool = False,
    potential: Literal["u_pre", "input"] = "u_pre",
    data_dir: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> Evaluation:
    """Evaluate the network of a run on its test split.

    run_dir, which, averaged: see `load_network`.
    folded: fold the network for inference first (`lifecycle.fold`).
    potential: of which the quantization error is measured, see `evaluate`.
    data_dir, device, workers: see `Execution`.

    Raises `UserError` and `CheckpointError` as `load_network`, and `UserError` for missing data.
    """
    execution = Execution(data_dir, device, workers)
    net, recipe = load_network(run_dir, which, averaged=averaged)
    with join(execution.device) as world:
        check(recipe, data_root(execution.data_dir))
        if folded:
            fold(net)
        _, samples = open_splits(
            recipe, make_dataset(recipe), execution.data_dir, Listener(), world.device
        )
        batches = test_batches(recipe, samples, world, execution.workers)
        return evaluate(net.to(world.device), batches, world=world, potential=potential)
