"""A run stores its recipe with all options, so that other defaults change no resumed run."""

import inspect
import signal
from pathlib import Path
from typing import Any

import pytest

from rmploss.cli import main
from rmploss.engine.build import DECIDED, PARTS, loosen, make_objective, resolve
from rmploss.engine.initial_weights import find_origin
from rmploss.engine.load import evaluate_run
from rmploss.engine.run import RunFolder, folder_name
from rmploss.engine.train import resume, train
from rmploss.errors import InterruptedRunError, UserError
from rmploss.objectives.rmp import RMPLoss
from rmploss.recipes import RECIPES, Recipe, use
from rmploss.report import story
from rmploss.report.tables import unreadable_runs
from tests.engine.runs import TINY, Interrupting, digest_of
from tests.engine.test_go_on import EVERY_STEP, Dying


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=lambda recipe: recipe.name)
def test_all_options_are_stored_but_those_that_a_recipe_must_not_set(recipe: Recipe) -> None:
    full = resolve(recipe)
    for field, table in PARTS.items():
        part = getattr(full, field)
        assert table.problems(part.name, part.options) == []
        missing = table.spelled_options(part.name).keys() - part.options.keys()
        assert missing <= ({*DECIDED} if field == "network" else set())
    assert resolve(full) == full == Recipe.from_json(full.to_json())
    assert resolve(loosen(full)) == full


def test_another_default_changes_no_resumed_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unbroken = train(TINY, tmp_path / "unbroken")
    with pytest.raises(RuntimeError, match="the machine failed"):
        train(TINY, tmp_path / "runs", EVERY_STEP, Dying(epoch=1, done=3))
    (path,) = (tmp_path / "runs").iterdir()
    before = make_objective(TINY).weight(0.75)
    function: Any = inspect.unwrap(RMPLoss.__init__)
    changed = {**function.__kwdefaults__, "schedule": "constant"}
    monkeypatch.setattr(function, "__kwdefaults__", changed)
    assert make_objective(TINY).weight(0.75) != before
    assert make_objective(RunFolder.open(path).recipe()).weight(0.75) == before
    assert digest_of(resume(path)) == digest_of(unbroken)


def test_a_folder_of_a_version_that_stored_the_recipe_as_given_goes_on(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError):
        train(TINY, tmp_path / "runs", None, Interrupting("train", 1, 2, signal.SIGINT))
    (path,) = (tmp_path / "runs").iterdir()
    assert path.name == folder_name(TINY.name, TINY.to_json())
    assert train(TINY, tmp_path / "runs", or_resume=True) == path


def test_old_and_new_records_of_one_recipe_do_not_differ() -> None:
    full = resolve(TINY)
    assert full.to_json() != TINY.to_json()
    assert story.differing_fields([TINY, full]) == {}
    assert story.differing_fields([TINY, full.but(T=3)]) == {"T": "2, 3"}


def test_a_source_is_altered_only_by_another_value(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = train(TINY.but(epochs=1), tmp_path)
    diet = TINY.but(neuron=use("diet"), start=use("hybrid", ann=TINY.name))
    for named, altered in ((TINY.but(epochs=1), False), (TINY, True)):
        monkeypatch.setitem(RECIPES.given, TINY.name, named)
        assert find_origin(diet, source).source_run["altered"] == altered


PLIF = TINY.but(neuron=use("plif"), epochs=1)


@pytest.mark.parametrize("stored", [PLIF, PLIF.but(norm=use("tdbn", factor="gain"))])
def test_a_run_without_the_threshold_of_its_norm_is_refused_where_its_rule_has_changed(
    tmp_path: Path, stored: Recipe, capsys: pytest.CaptureFixture[str]
) -> None:
    path = RunFolder.create(tmp_path, "old", stored.to_json(), command=["rmploss"]).path
    words = "norm.v_threshold(?s:.*)1, the threshold of plif, or 2, the current"
    for read in (resume, evaluate_run):
        with pytest.raises(UserError, match=words) as caught:
            read(path)
        assert "which wrote it" in caught.value.problems[0].fix
    assert main(["train", "--fork", str(path), "--epochs", "2"]) == 2
    assert "the current at which it fires" in capsys.readouterr().err
    (problem,) = unreadable_runs(tmp_path)
    assert "norm.v_threshold" in problem.where
    assert not (path / "ckpt").exists()


@pytest.mark.parametrize(
    "stored",
    [TINY, resolve(PLIF), PLIF.but(norm=use("bn_step")), PLIF.but(norm=use("tdbn", factor="none"))],
    ids=["lif", "stored", "no threshold", "no factor"],
)
def test_a_run_whose_norm_has_one_meaning_is_read(tmp_path: Path, stored: Recipe) -> None:
    folder = RunFolder.create(tmp_path, "old", stored.to_json(), command=["rmploss"])
    assert folder.recipe() == stored


def test_the_norm_of_a_fork_follows_its_neuron(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = train(TINY.but(epochs=1), tmp_path / "source")
    words = ["--set", "neuron.v_threshold=1", "--epochs", "2", "--runs-dir", str(tmp_path / "fork")]
    assert main(["train", "--fork", str(source), *words]) == 0
    capsys.readouterr()
    (path,) = (tmp_path / "fork").iterdir()
    recipe = RunFolder.open(path).recipe()
    assert RunFolder.open(source).recipe().norm.options["v_threshold"] == 0.5
    assert recipe.norm.options["v_threshold"] == 1.0
