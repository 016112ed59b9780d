"""Flags of `rmploss train` become recipes."""

from pathlib import Path
from typing import Any

import pytest

from rmploss import recipes
from rmploss.cli.train import AUTO, Train
from rmploss.engine.run import RunFolder
from rmploss.errors import UserError
from rmploss.recipes import Recipe


@pytest.fixture(autouse=True)
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """No data set is missed."""
    monkeypatch.setattr("rmploss.data.cifar.CIFAR10.missing", lambda self, root: [])


def jobs(recipe: str, **flags: Any) -> list[Recipe]:
    return Train(recipe=recipe, **flags)._jobs()


def test_flags_and_assignments_change_the_recipe() -> None:
    (recipe,) = jobs("cifar10-resnet20-rmp", T=6, width=0.5, set=("objective.k=1", "lr=0.5"))
    base = recipes.get("cifar10-resnet20-rmp")
    changed = {"T": 6, "network.width": 0.5, "objective.k": 1, "lr": 0.5}
    assert recipe == recipes.override(base, changed)


def test_every_seed_is_a_job() -> None:
    assert [job.seed for job in jobs("digits", seed=(3, 0, 2))] == [3, 0, 2]


def test_a_wrong_seed_is_reported_before_the_first_run() -> None:
    with pytest.raises(UserError, match="seed = -1"):
        jobs("digits", seed=(0, -1))


def test_the_authors_reading() -> None:
    (recipe,) = jobs("cifar10-resnet20-rmp", mode="code")
    assert recipe == recipes.read_as(recipes.get("cifar10-resnet20-rmp"), "code")


def test_what_is_typed_counts_more_than_the_reading() -> None:
    words = ("objective.potential=u_pre", "norm.factor=gain")
    (recipe,) = jobs("cifar10-resnet20-rmp", mode="code", set=words)
    assert recipe.objective.options["potential"] == "u_pre"
    assert recipe.norm.options["factor"] == "gain"
    assert recipe.objective.options["exclude"] == ("*.lif1",)  # the rest is as it was read
    assert recipe.network.options["readout"] == "mean"


def test_the_reading_covers_what_was_typed() -> None:
    (recipe,) = jobs("cifar10-resnet20", mode="code", set=("objective=rmp",))
    assert recipe.objective.options["potential"] == "input"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"set": ("seed=1",)}, "--seed N ..."),
        ({"T": 4, "set": ("T=6",)}, "--set T: is given as a flag, too"),
        ({"seed": ()}, "at least one number"),
        ({"resume": Path("runs/x")}, "cannot be combined with a recipe"),
        ({"resume": AUTO, "seed": (0, 1), "name": "x"}, "2 seeds are 2 runs"),
        ({"fork": Path("runs/x")}, "recipe digits: is that of the forked run"),
    ],
)
def test_what_contradicts_itself(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        jobs("digits", **flags)


@pytest.mark.parametrize("flags", [{"T": 4}, {"set": ("lr=1",)}, {"mode": "code"}, {"seed": (1,)}])
def test_a_run_is_resumed_as_it_was_started(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="a run is resumed as it was started"):
        Train(resume=Path("runs/x"), **flags)._jobs()


def test_a_run_that_may_have_begun_has_a_recipe() -> None:
    (recipe,) = jobs("digits", resume=AUTO, T=6)
    assert recipe == recipes.get("digits").but(T=6, expect="")


@pytest.mark.parametrize("flags", [{"seed": (1,)}, {"mode": "code"}, {"start": Path("runs/y")}])
def test_a_fork_keeps_what_it_cannot_change(flags: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="a fork has the recipe of its run, with changes"):
        Train(fork=Path("runs/x"), **flags)._jobs()


def test_a_fork_has_the_recipe_of_its_run_with_changes(tmp_path: Path) -> None:
    stored = recipes.override(recipes.get("digits"), {"T": 3})
    run = RunFolder.create(tmp_path, "x", stored.to_json(), command=[]).path
    (recipe,) = Train(fork=run, lr=0.5, set=("objective=rmp",))._jobs()
    assert recipe == recipes.override(stored, {"lr": 0.5, "objective": "rmp"})
