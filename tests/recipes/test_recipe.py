"""Recipes as data: JSON there and back, fingerprints, overrides, and mistakes."""

import dataclasses
import json
from typing import Any

import pytest

from rmploss.errors import UserError
from rmploss.recipes import RECIPES, Recipe, get, override, problems_in, use

BASE = Recipe(
    name="base",
    title="a recipe",
    data=use("digits"),
    network=use("convnet", width=0.5),
    T=4,
    objective=use("rmp", k=0.1, exclude=("*.lif1",)),
    lr=0.1,
    epochs=8,
    batch_size=64,
)


@pytest.mark.parametrize("name", RECIPES)
def test_json_there_and_back(name: str) -> None:
    recipe = RECIPES[name]
    text = json.dumps(recipe.to_json(), allow_nan=False)
    assert Recipe.from_json(json.loads(text)) == recipe


def test_tuples_survive_json() -> None:
    back = Recipe.from_json(json.loads(json.dumps(BASE.to_json())))
    assert back == BASE
    assert back.objective.options["exclude"] == ("*.lif1",)
    assert back.fingerprint() == BASE.fingerprint()


def test_a_recipe_of_another_version_is_reported() -> None:
    plain = BASE.to_json() | {"epoch": 3, "colour": "red"}
    with pytest.raises(UserError, match="not a recipe of this version") as caught:
        Recipe.from_json(plain)
    assert [p.where for p in caught.value.problems] == ["epoch", "colour"]
    assert caught.value.problems[0].fix == 'did you mean "epochs"?'
    missing = {key: value for key, value in BASE.to_json().items() if key != "lr"}
    with pytest.raises(UserError, match="lr"):
        Recipe.from_json(missing)


def test_an_option_that_is_gone_and_decided_nothing_is_not_read() -> None:
    plain = BASE.to_json()
    plain["neuron"]["options"]["backend"] = "auto"
    assert Recipe.from_json(plain) == BASE


def test_the_fingerprint_is_that_of_the_result() -> None:
    same = [{"seed": 7}, {"name": "x"}, {"title": "x"}, {"expect": "x"}]
    assert {BASE.but(**change).fingerprint() for change in same} == {BASE.fingerprint()}
    other: list[dict[str, Any]] = [
        {"T": 5}, {"lr": 0.2}, {"epochs": 9}, {"batch_size": 32}, {"accumulate": 2},
        {"weight_decay": 0.0}, {"weight_decay_on": "weights"}, {"amp": "bf16"},
        {"train_samples": 10}, {"test_samples": 10}, {"lr_schedule": use("onecycle")},
        {"objective": BASE.objective.but(k=0.2)}, {"neuron": use("if")},
        {"norm": BASE.norm.but(factor="none")}, {"data": use("digits-events")},
        {"network": BASE.network.but(width=0.25)}, {"optimizer": use("adam")}, {"pocket": True},
        {"loss": use("tet")}, {"clip_norm": 1.0}, {"validation": 0.1},
        {"auxiliary": use("every_step")}, {"average": use("ema")},
        {"start": use("hybrid", ann="base")},
    ]  # fmt: skip
    prints = [BASE.but(**change).fingerprint() for change in other]
    assert len({*prints, BASE.fingerprint()}) == len(other) + 1
    decides = {f.name for f in dataclasses.fields(Recipe)} - {"name", "title", "expect", "seed"}
    assert decides == {key for change in other for key in change}


def test_a_recipe_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        BASE.T = 5  # pyright: ignore[reportAttributeAccessIssue]
    changed = BASE.objective.but(k=0.2)
    assert changed.options["k"] == 0.2
    assert BASE.objective.options["k"] == 0.1


def test_overrides() -> None:
    changes: dict[str, Any] = {
        "T": 6, "lr": 1, "objective.k": 1.0, "objective.p": 1, "train_samples": None,
        "weight_decay_on": "weights", "network": "vgg16", "neuron.decay": 0.5, "seed": 3,
    }  # fmt: skip
    recipe = override(BASE, changes)
    assert (recipe.T, recipe.lr, recipe.seed) == (6, 1.0, 3)
    assert isinstance(recipe.lr, float)
    assert recipe.objective == use("rmp", k=1.0, exclude=("*.lif1",), p=1)
    assert recipe.network == use("vgg16")
    assert recipe.neuron == use("lif", decay=0.5)
    assert recipe.weight_decay_on == "weights"
    assert override(BASE, {}) == BASE
    # The same entry keeps its options; another one starts from its own defaults.
    assert override(BASE, {"objective": "rmp"}).objective == BASE.objective
    assert override(BASE, {"objective": "none"}).objective == use("none")
    for order in (("network", "network.width"), ("network.width", "network")):
        values: dict[str, Any] = {"network": "resnet20", "network.width": 0.25}
        later = override(BASE, {key: values[key] for key in order})
        assert later.network == use("resnet20", width=0.25)


def test_all_wrong_overrides_at_once() -> None:
    changes: dict[str, Any] = {
        "objectiv.k": 1, "T": 2.5, "lr": "fast", "lr.k": 1, "objective": 3, "amp": "fp8",
        "name": "mine", "train_samples": "all", "epochs": True, "batch_size": 32,
    }  # fmt: skip
    with pytest.raises(UserError, match="9 problems in the recipe base") as caught:
        override(BASE, changes)
    lines = {p.where: (p.what, p.fix) for p in caught.value.problems}
    assert lines["objectiv.k"] == ('unknown "objectiv"', 'did you mean "objective"?')
    assert lines["T = 2.5"][0] == "must be a whole number"
    assert lines["lr = 'fast'"][0] == "must be a number"
    assert lines["lr.k = 1"][0] == "must be a number"
    assert lines["objective = 3"][0] == "must be a name that `rmploss list` shows"
    assert lines["amp = 'fp8'"][0] == "must be one of 'off', 'bf16', 'fp16'"
    assert lines["train_samples = 'all'"][0] == "must be a whole number or none"
    assert lines["epochs = True"][0] == "must be a whole number"
    assert "name" in lines
    assert len(lines) == 9


def test_all_problems_of_the_numbers_at_once() -> None:
    assert problems_in(BASE) == []
    bad = BASE.but(T=0, epochs=0, batch_size=-1, lr=-0.1, weight_decay=1.0, test_samples=0, seed=-1)
    assert [p.where for p in problems_in(bad)] == [
        "T = 0", "epochs = 0", "batch_size = -1", "lr = -0.1", "weight_decay = 1.0",
        "test_samples = 0", "seed = -1",
    ]  # fmt: skip
    (problem,) = problems_in(BASE.but(accumulate=3))
    assert problem.what == "does not divide batch_size = 64"
    for share in (0.0, 1.0, -0.5, float("nan")):
        (problem,) = problems_in(BASE.but(validation=share))
        assert problem.where == f"validation = {share!r}"
    assert problems_in(BASE.but(validation=0.5)) == []
    for lr in (float("nan"), float("inf"), 0.0):
        assert problems_in(BASE.but(lr=lr))


def test_none_is_the_entry_of_that_name() -> None:
    recipe = override(BASE, {"objective": None, "norm": None})
    assert (recipe.objective, recipe.norm) == (use("none"), use("none"))


def test_an_unknown_recipe() -> None:
    with pytest.raises(UserError, match="no such recipe") as caught:
        get("cifar10-resnet20-rpm")
    assert 'did you mean "cifar10-resnet20-rmp", ' in str(caught.value)
    assert "rmploss list" in str(caught.value)
    assert get("digits").name == "digits"
