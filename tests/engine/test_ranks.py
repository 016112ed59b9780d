"""Two ranks are one on the same global batch: statistics, RMP term, gradients, evaluation, run."""

import json
import os
import signal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from rmploss.engine import batches, checkpoint, step, train
from rmploss.engine.batches import RankBatches, open_splits
from rmploss.engine.build import make_dataset, make_network, make_objective
from rmploss.engine.checkpoint import DamagedError, read
from rmploss.engine.evaluate import evaluate
from rmploss.engine.execution import Execution, join
from rmploss.engine.listener import Listener
from rmploss.engine.load import load_network
from rmploss.engine.run import RunFolder
from rmploss.engine.step import forward_backward
from rmploss.engine.tally import Terms
from rmploss.engine.train import resume
from rmploss.errors import UserError
from rmploss.objectives.weighting import weights_of
from rmploss.recipes import Recipe
from tests.engine.children import be_rank, check_sound, finish, free_port, pipe, start
from tests.engine.runs import TINY, digest_of

SPLITS = (40, 1)
"""Sizes of the test split: a short last batch; fewer samples than ranks."""


def one_step(rank: int, port: str, answer: Connection) -> None:
    """The numbers of one step and its evaluations in float64, by rank 0 of two, or by one alone."""
    if port:
        be_rank(rank, port)
    with join("cpu") as world:
        dataset, objective = make_dataset(TINY), make_objective(TINY)
        net = make_network(TINY, dataset).double()
        ddp = DistributedDataParallel(net) if world.size > 1 else net
        samples, _ = open_splits(TINY, dataset, None, Listener())
        x, y = next(RankBatches(TINY, world).train(samples, epoch=0))
        terms = forward_backward(ddp, objective, x.double(), y, weights=weights_of(objective, 0.5))
        numbers: dict[str, Any] = Terms(world.all_reduce_sum(terms.sums)).means()
        for size in SPLITS:
            recipe = TINY.but(test_samples=size)
            _, test = open_splits(recipe, dataset, None, Listener())
            shares = ((x.double(), y) for x, y in batches.RankBatches(recipe, world).test(test))
            found = evaluate(net, shares, world=world)
            numbers |= {f"accuracy of {size}": found.accuracy, f"loss of {size}": found.loss}
            for layer in found.layers:
                numbers[f"{layer.name} error of {size}"] = layer.quantization_error
                numbers[f"{layer.name} rate of {size}"] = layer.firing_rate
    for name, p in net.named_parameters():
        assert p.grad is not None
        numbers[f"gradient of {name}"] = p.grad.flatten().tolist()
    for name, buffer in net.named_buffers():
        numbers[f"buffer {name}"] = buffer.flatten().tolist()
    if rank == 0:
        answer.send_bytes(json.dumps(numbers).encode())


def test_a_step_of_two_ranks_is_that_of_one() -> None:
    found = []
    for ranks in (1, 2):
        port = free_port() if ranks == 2 else ""
        here, there = pipe()
        children = [start(one_step, rank, port, there) for rank in range(ranks)]
        assert [finish(child) for child in children] == [0] * ranks
        found.append(json.loads(here.recv_bytes()))
    one, two = found
    assert list(one) == list(two)
    for name in one:
        ours, theirs = torch.tensor(two[name]).double(), torch.tensor(one[name]).double()
        torch.testing.assert_close(
            ours, theirs, rtol=1e-10, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}"
        )
    assert {f"lif3 error of {size}" for size in SPLITS} < set(one)
    assert max(map(abs, one["gradient of conv1.conv.weight"])) > 1e-3


def whole_run(rank: int, port: str, runs: Path, recipe: Recipe, trouble: str, size: int) -> None:
    """A run of several ranks; in its third step, rank 1 alone meets a signal or a NaN."""
    be_rank(rank, port, size)
    calls = 0

    def troubled(*arguments: Any, **options: Any) -> Terms:
        nonlocal calls
        calls += 1
        terms = forward_backward(*arguments, **options)
        if calls == 3 and rank == 1 and trouble == "signal":
            os.kill(os.getpid(), signal.SIGTERM)
        if calls == 3 and rank == 1 and trouble == "NaN":
            terms += Terms(torch.tensor([float("nan"), 0, 0, 0]))
        return terms

    step.forward_backward = troubled
    train.train(recipe, runs, Execution(device="cpu"))


def together(runs: Path, trouble: str = "", recipe: Recipe = TINY, size: int = 2) -> list[int]:
    """The exit codes of all ranks of a run."""
    port = free_port()
    ranks = [start(whole_run, rank, port, runs, recipe, trouble, size) for rank in range(size)]
    return [finish(rank) for rank in ranks]


def test_accumulated_parts_of_two_ranks_are_those_of_one(tmp_path: Path) -> None:
    recipe = TINY.but(epochs=1, train_samples=32, accumulate=2, weight_decay=0.0)
    assert together(tmp_path, recipe=recipe) == [0, 0]
    trained, _ = load_network(next(tmp_path.iterdir()))

    dataset, objective = make_dataset(recipe), make_objective(recipe)
    samples, _ = open_splits(recipe, dataset, None, Listener())
    x, y = next(RankBatches(recipe).train(samples, epoch=0))
    net = make_network(recipe, dataset)
    for begin in (0, 8):  # of either rank's 16 samples
        both = [*range(begin, begin + 8), *range(16 + begin, 24 + begin)]
        weights = weights_of(objective, 1.0)
        forward_backward(net, objective, x[both], y[both], weights=weights)
    rate = recipe.lr / 25  # the first of "onecycle"
    for p, ours in zip(net.parameters(), trained.parameters(), strict=True):
        assert p.grad is not None
        expected = p.detach() - rate * p.grad / 2
        torch.testing.assert_close(ours.detach(), expected, rtol=1e-6, atol=1e-7)


def test_two_ranks_make_one_run_close_to_that_of_one(tmp_path: Path) -> None:
    assert together(tmp_path / "two") == [0, 0]
    (path,) = (tmp_path / "two").iterdir()
    check_sound(path)
    one = RunFolder.open(train.train(TINY, tmp_path / "one")).metrics()
    two = RunFolder.open(path).metrics()
    assert [r["step"] for r in two] == [4, 8]
    assert two[0]["train_loss"] == pytest.approx(one[0]["train_loss"], rel=1e-4)
    assert two[0]["train_regularizer"] == pytest.approx(one[0]["train_regularizer"], rel=1e-3)


def test_a_signal_to_one_rank_stops_both_after_the_same_step(tmp_path: Path) -> None:
    assert together(tmp_path, "signal") == [75, 75]
    (path,) = tmp_path.iterdir()
    names = sorted(saved.name for saved in (path / "ckpt").iterdir())
    assert names == ["step-00000000", "step-00000003"]
    resume(path)  # by one rank
    check_sound(path)
    (event,) = [e for e in RunFolder.open(path).events() if e["event"] == "resume"]
    assert (event["step"], event["inexact"]) == (3, ["ranks 2 is now 1"])


def go_on(rank: int, port: str, path: Path, size: int) -> None:
    be_rank(rank, port, size)
    train.resume(path, Execution(device="cpu"))


@pytest.mark.parametrize("size", [2, 3])
def test_ranks_that_go_on_within_an_epoch_end_as_the_unbroken_run(
    size: int, tmp_path: Path
) -> None:
    """The saved sums are those of all ranks; three ranks round each sum of gradients as before."""
    recipe = TINY.but(train_samples=96, batch_size=24)
    assert together(tmp_path / "stopped", "signal", recipe, size) == [75] * size
    (path,) = (tmp_path / "stopped").iterdir()
    port = free_port()
    ranks = [start(go_on, rank, port, path, size) for rank in range(size)]
    assert [finish(rank) for rank in ranks] == [0] * size
    assert together(tmp_path / "unbroken", "", recipe, size) == [0] * size
    (unbroken,) = (tmp_path / "unbroken").iterdir()
    assert digest_of(path) == digest_of(unbroken)


def test_a_nan_on_one_rank_stops_both_before_the_update(tmp_path: Path) -> None:
    assert together(tmp_path, "NaN") == [3, 3]
    (path,) = tmp_path.iterdir()
    assert [saved.name for saved in (path / "ckpt").iterdir()] == ["step-00000000"]


def go_on_half_blind(rank: int, port: str, path: Path, fork: Path, answer: Connection) -> None:
    """A resume, or a fork, of which rank 1 does not see the newest checkpoint."""
    be_rank(rank, port)
    newest, verified = checkpoint.saved(path)[0], read._verified

    def blind(file: Path, expected: Any) -> bytes:
        if rank == 1 and file.parent == newest:
            raise DamagedError("cannot be read here")
        return verified(file, expected)

    read._verified = blind
    execution = Execution(device="cpu")
    try:
        if fork == path:
            train.resume(path, execution)
        else:
            train.train(TINY.but(lr=0.01), fork, execution, fork=path)
    except UserError as error:
        if rank == 0:
            answer.send_bytes(str(error).encode())
        raise


@pytest.mark.parametrize("forked", [False, True])
def test_ranks_never_go_on_from_different_checkpoints(forked: bool, tmp_path: Path) -> None:
    assert together(tmp_path / "stopped", "signal") == [75, 75]
    (path,) = (tmp_path / "stopped").iterdir()
    fork = tmp_path / "forks" if forked else path
    here, there = pipe()
    port = free_port()
    ranks = [start(go_on_half_blind, rank, port, path, fork, there) for rank in range(2)]
    assert [finish(rank) for rank in ranks] == [2, 2]
    message = "checkpoint of rank 1: is 'step-00000000', that of rank 0 is 'step-00000003'"
    assert message in here.recv_bytes().decode()
    assert not (tmp_path / "forks").exists()
