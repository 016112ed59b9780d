"""A run with the weights of another: requirements, record, resuming."""

import hashlib
import signal
from pathlib import Path

import pytest

from rmploss.engine import checkpoint
from rmploss.engine.execution import Execution
from rmploss.engine.run import RunFolder
from rmploss.engine.starts import STARTS, HybridStart
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError, UserError
from rmploss.recipes import RECIPES, get, use
from tests.engine.runs import TINY, Interrupting, digest_of

ANN = TINY.but(name="tiny-ann", neuron=use("relu"), objective=use("none"), T=1, epochs=1)
START = use("hybrid", ann="tiny-ann", samples=16, steps=3, percentile=99.0, scale=0.5)
SNN = TINY.but(name="tiny-snn", neuron=use("diet"), objective=use("none"), start=START)


@pytest.fixture(scope="module")
def ann(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained ANN."""
    return train(ANN, tmp_path_factory.mktemp("ann"))


def test_it_begins_with_the_weights_and_records_whose(ann: Path, tmp_path: Path) -> None:
    stop = Interrupting("train", 1, 1, signal.SIGTERM)  # its first checkpoint is still there
    with pytest.raises(InterruptedRunError):
        train(SNN, tmp_path, Execution(start=ann), stop)
    (path,) = tmp_path.iterdir()
    folder = RunFolder.open(path)
    (begin,) = [event for event in folder.events() if event["event"] == "begin"]
    newest = checkpoint.saved(ann)[0]
    assert begin["sha256"] == hashlib.sha256((newest / checkpoint.STATE).read_bytes()).hexdigest()
    assert (begin["run"], begin["recipe"], begin["epoch"]) == (str(ann), "tiny-ann", 1)
    assert begin["thresholds"].keys() == {"lif1", "lif2", "lif3"}

    first = checkpoint.load_step(path, 0, recipe_hash=folder.recipe_hash)
    other = checkpoint.load_latest(ann, recipe_hash=RunFolder.open(ann).recipe_hash)
    for key, value in other.model_state.items():
        assert value.equal(first.model_state[key]), key
    for name, threshold in begin["thresholds"].items():
        assert first.model_state[f"{name}.threshold"].item() == pytest.approx(threshold, rel=1e-6)
        assert threshold != 1


def test_an_interrupted_one_resumes_without_the_other_run(ann: Path, tmp_path: Path) -> None:
    unbroken = train(SNN, tmp_path / "unbroken", Execution(start=ann))
    stop = Interrupting("train", 1, 2, signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        train(SNN, tmp_path / "broken", Execution(start=ann), stop)
    (path,) = (tmp_path / "broken").iterdir()
    assert digest_of(resume(path)) == digest_of(unbroken)
    assert len([e for e in RunFolder.open(path).events() if e["event"] == "begin"]) == 1


def test_a_missing_start_says_what_to_train(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="starts from a trained network") as caught:
        train(SNN, tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == "--start"
    assert problem.fix.startswith("rmploss train tiny-ann")
    assert not [*tmp_path.iterdir()]


def test_a_start_that_does_not_fit_is_reported_before_anything_is_written(
    ann: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="starts from its seed"):
        train(TINY, tmp_path, Execution(start=ann))
    with pytest.raises(UserError, match="not a run"):
        train(SNN, tmp_path, Execution(start=tmp_path / "nothing"))
    wider = SNN.but(network=SNN.network.but(width=0.25))
    with pytest.raises(UserError, match="the ANN is not of this network"):
        train(wider, tmp_path, Execution(start=ann))
    assert not [*tmp_path.iterdir()]


def test_another_network_is_refused(tmp_path: Path) -> None:
    stranger = train(ANN.but(name="something-else"), tmp_path / "ann")
    with pytest.raises(UserError, match="starts from a finished tiny-ann") as caught:
        train(SNN, tmp_path / "snn", Execution(start=stranger))
    assert caught.value.problems[0].what == "is of something-else, 1 of 1 epochs"
    stop = Interrupting("train", 1, 1, signal.SIGTERM)
    with pytest.raises(InterruptedRunError):
        train(ANN, tmp_path / "unfinished", listener=stop)
    (unfinished,) = (tmp_path / "unfinished").iterdir()
    with pytest.raises(UserError, match="starts from a finished tiny-ann") as caught:
        train(SNN, tmp_path / "snn", Execution(start=unfinished))
    assert caught.value.problems[0].what == "is of tiny-ann, 0 of 1 epochs"
    assert not (tmp_path / "snn").exists()


@pytest.mark.parametrize("altered", [False, True])
def test_a_changed_ann_is_recorded(
    altered: bool, ann: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ANN.but(weight_decay=0.5) if altered else ANN.but(seed=3)
    monkeypatch.setitem(RECIPES.given, "tiny-ann", named)
    path = train(SNN.but(epochs=1), tmp_path, Execution(start=ann))
    (begin,) = [event for event in RunFolder.open(path).events() if event["event"] == "begin"]
    assert begin["altered"] == altered


def test_wrong_options_are_reported() -> None:
    with pytest.raises(UserError) as caught:
        HybridStart(percentile=0, scale=-1, samples=0, steps=0)
    places = [problem.where for problem in caught.value.problems]
    assert places == ["ann", "percentile = 0", "scale = -1", "samples = 0", "steps = 0"]
    assert [*STARTS] == ["none", "hybrid", "weights"]


def test_a_pocket_start_is_that_of_the_pocket_ann() -> None:
    for data in ("cifar10", "cifar100"):
        for network in ("vgg16", "resnet20"):
            recipe = get(f"{data}-diet-{network}-pocket")
            origin = get(str(recipe.start.options["ann"]))
            assert origin.pocket
            assert origin.network.options["width"] == recipe.network.options["width"]
            assert origin.network.name == recipe.network.name
            full = get(f"{data}-diet-{network}")
            assert get(str(full.start.options["ann"])).network.name == full.network.name
