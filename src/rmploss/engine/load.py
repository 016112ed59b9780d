"""Load the trained network of a run folder, or evaluate it."""

from pathlib import Path
from typing import Literal

from rmploss.data import data_root
from rmploss.engine import checkpoint
from rmploss.engine.batches import open_splits, test_batches
from rmploss.engine.build import check, make_dataset, make_network
from rmploss.engine.evaluate import Evaluation, evaluate
from rmploss.engine.execution import Execution, join
from rmploss.engine.listener import Listener
from rmploss.engine.run import RunFolder
from rmploss.engine.run_summary import summarize
from rmploss.errors import UserError
from rmploss.lifecycle import fold
from rmploss.models import SpikingNetwork
from rmploss.recipes import Recipe


def load_network(
    run_dir: Path, which: Literal["last", "best"] = "last"
) -> tuple[SpikingNetwork, Recipe]:
    """The network of a run in evaluation mode, on the CPU, and the run's recipe.

    run_dir: the run folder.
    which: the last checkpoint, or the one of the best test accuracy.

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
    net.load_state_dict(loaded.model_state)
    return net.eval(), recipe


def evaluate_run(
    run_dir: Path,
    *,
    which: Literal["last", "best"] = "last",
    folded: bool = False,
    data_dir: Path | None = None,
    device: str = "auto",
    workers: int | None = None,
) -> Evaluation:
    """Evaluate the network of a run on its test split.

    run_dir, which: see `load_network`.
    folded: fold the network for inference first (`lifecycle.fold`).
    data_dir, device, workers: see `Execution`.

    Raises `UserError` and `CheckpointError` as `load_network`, and `UserError` for missing data.
    """
    execution = Execution(data_dir, device, workers)
    net, recipe = load_network(run_dir, which)
    with join(execution.device) as world:
        check(recipe, data_root(execution.data_dir))
        if folded:
            fold(net)
        _, samples = open_splits(
            recipe, make_dataset(recipe), execution.data_dir, Listener(), world.device
        )
        batches = test_batches(recipe, samples, world, execution.workers)
        return evaluate(net.to(world.device), batches, world=world)
