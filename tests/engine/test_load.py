"""Loaded networks equal the saved ones, of the last or of the best epoch."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from rmploss.engine import load, train
from rmploss.engine.batches import RankBatches, open_splits
from rmploss.engine.build import make_dataset, resolve
from rmploss.engine.evaluate import Evaluation, Evaluator, evaluate
from rmploss.engine.listener import Listener
from rmploss.engine.load import evaluate_run, load_network
from rmploss.engine.run import RunFolder
from rmploss.errors import CheckpointError, InterruptedRunError, UserError
from rmploss.lifecycle import fold
from tests.engine.children import check_sound
from tests.engine.runs import TINY, Interrupting

ACCURACIES = [10.0, 60.0, 60.0, 40.0, 30.0]
"""Of the epochs of `run`: the best is the second, and is not among the last two checkpoints."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose best epoch was long ago."""
    rates = iter(ACCURACIES)

    def graded(*arguments: Any) -> Evaluation:
        found = evaluated(*arguments)
        accuracy = next(rates, found.accuracy)  # what comes after the epochs is the analysis
        return Evaluation(accuracy, found.loss, found.samples, found.layers)

    evaluated = Evaluator.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Evaluator, "__call__", graded)
        return train.train(TINY.but(epochs=5), tmp_path_factory.mktemp("runs"))


def test_the_best_checkpoint_is_kept_beside_the_last_two(run: Path) -> None:
    names = sorted(path.name for path in (run / "ckpt").iterdir())
    assert names == ["step-00000008", "step-00000016", "step-00000020"]
    result = json.loads((run / "result.json").read_text())
    assert (result["best_epoch"], result["best_accuracy"]) == (2, 60.0)
    assert (result["epochs"], result["last_accuracy"]) == (5, 30.0)
    check_sound(run)


@pytest.mark.parametrize(("which", "epoch"), [("last", 5), ("best", 2)])
def test_the_network_is_that_of_its_epoch(which: Any, epoch: int, run: Path) -> None:
    net, recipe = load_network(run, which)
    assert recipe == resolve(TINY.but(epochs=5))
    assert not net.training
    found = evaluate_run(run, which=which)
    record = RunFolder.open(run).metrics()[epoch - 1]
    assert found.loss == record["test_ce"]
    assert {layer.name: layer.firing_rate for layer in found.layers} == {
        name: layer["firing_rate"] for name, layer in record["layers"].items()
    }


def test_a_run_is_tested_in_its_precision_then_and_later(tmp_path: Path) -> None:
    path = train.train(TINY.but(epochs=1, amp="bf16"), tmp_path)
    tested = RunFolder.open(path).metrics()[0]["test_ce"]
    assert evaluate_run(path).loss == tested
    net, recipe = load_network(path)
    _, samples = open_splits(recipe, make_dataset(recipe), None, Listener(), torch.device("cpu"))
    full = evaluate(net, RankBatches(recipe).test(samples)).loss
    assert full != tested
    assert full == pytest.approx(tested, rel=0.1)


def test_evaluation_can_fold_and_use_workers(run: Path) -> None:
    plain = evaluate_run(run)
    assert evaluate_run(run, workers=1) == plain
    folded = evaluate_run(run, folded=True)
    assert folded.loss == pytest.approx(plain.loss, rel=1e-3)
    assert folded != plain


def test_folding_happens_on_request_alone(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[object] = []
    monkeypatch.setattr(load, "fold", lambda net: calls.append(fold(net)))
    evaluate_run(run)
    assert not calls
    evaluate_run(run, folded=True)
    assert len(calls) == 1


def test_reading_a_run_changes_nothing_in_it(run: Path) -> None:
    def content() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}

    before = content()
    evaluate_run(run)
    load_network(run, "best")
    assert content() == before


def test_a_run_without_a_finished_epoch_has_no_best(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train.train(TINY, tmp_path, listener=Interrupting("train", 1, 1, signal.SIGTERM))
    (path,) = tmp_path.iterdir()
    with pytest.raises(UserError, match="finished no epoch yet"):
        load_network(path, "best")
    assert load_network(path)[1] == resolve(TINY)  # its last checkpoint is there


def test_a_damaged_best_checkpoint_is_reported(run: Path, tmp_path: Path) -> None:
    copied = tmp_path / "copied"
    for path in run.rglob("*"):
        if path.is_file():
            target = copied / path.relative_to(run)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    state = copied / "ckpt" / "step-00000008" / "state.safetensors"
    state.write_bytes(state.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match=r"step-00000008 .*SHA-256"):
        load_network(copied, "best")
    assert torch.is_tensor(next(load_network(copied)[0].parameters()))


def test_what_is_not_a_run_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no recipe\.json"):
        evaluate_run(tmp_path)
