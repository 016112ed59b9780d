"""The cards of the systems of the paper's tables, and every published number of theirs."""

import pytest

from rmploss.data import DATASETS
from rmploss.engine.build import check
from rmploss.models import MODELS
from rmploss.recipes import FAIR, METHODS, RECIPES, Method, Recipe, fair
from rmploss.recipes.pocket import SUFFIX

# Copied from the paper's Tables 2-4: data, T, accuracy in percent.
PUBLISHED = {
    "stbp": [("cifar10", 12, 90.53)],
    "tssl": [("cifar10", 5, 91.41)],
    "plif": [("cifar10", 8, 93.50)],
    "dsr": [("cifar10", 20, 95.40), ("cifar100", 20, 78.50)],
    "joint": [("cifar10", 4, 95.45)],
    "diet": [
        ("cifar10", 5, 92.70), ("cifar10", 10, 93.44), ("cifar10", 5, 91.78),
        ("cifar10", 10, 92.54), ("cifar100", 5, 64.07), ("cifar100", 5, 69.67),
    ],
    "recdis": [
        ("cifar10", 2, 93.64), ("cifar10", 4, 95.53), ("cifar10", 6, 95.55),
        ("cifar10-dvs", 10, 72.42),
    ],
    "tdbn": [
        ("cifar10", 2, 92.34), ("cifar10", 4, 92.92), ("cifar10", 6, 93.16),
        ("cifar10-dvs", 10, 67.80), ("imagenet", 6, 63.72),
    ],
    "tet": [
        ("cifar10", 2, 94.16), ("cifar10", 4, 94.44), ("cifar10", 6, 94.50),
        ("cifar100", 2, 72.87), ("cifar100", 4, 74.47), ("cifar100", 6, 74.72),
        ("imagenet", 6, 64.79),
    ],
    "inflor": [
        ("cifar10", 2, 94.44), ("cifar10", 4, 96.27), ("cifar10", 6, 96.49),
        ("cifar100", 5, 71.56), ("cifar10-dvs", 10, 75.50),
    ],
    "im": [("cifar100", 5, 70.18)],
    "real": [("cifar100", 5, 66.60), ("cifar100", 5, 70.62)],
    "liaf": [("cifar10-dvs", 10, 70.40), ("cifar10-dvs", 10, 71.70)],
    "sew": [("imagenet", 4, 63.18), ("imagenet", 4, 67.04)],
    "spiking_resnet": [("imagenet", 4, 62.32), ("imagenet", 4, 61.86)],
}  # fmt: skip


@pytest.fixture(params=METHODS.values(), ids=list(METHODS))
def method(request: pytest.FixtureRequest) -> Method:
    """Every card."""
    return request.param


def test_all_systems_of_the_tables_are_here() -> None:
    assert set(METHODS) == {*PUBLISHED, "vanilla", "rmp"}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_numbers(name: str) -> None:
    ours = [(RECIPES[r.recipe].data.name, r.T, r.accuracy) for r in METHODS[name].rows]
    assert sorted(ours) == sorted(PUBLISHED[name])


def test_a_card_says_what_it_is(method: Method) -> None:
    for text in (method.title, method.paper, method.idea, method.equations, method.inference):
        assert text
    assert "20" in method.paper  # a year
    where = {"cifar10": 2, "cifar100": 2, "cifar10-dvs": 3, "imagenet": 4}
    for row in method.rows:
        assert row.table in (1, where[RECIPES[row.recipe].data.name])


def test_every_recipe_has_a_pocket_variant(method: Method) -> None:
    for recipe in method.recipes:
        pocket = RECIPES[recipe.name + SUFFIX]
        assert pocket.pocket
        assert pocket.network.options["width"] <= 0.25  # pyright: ignore[reportOperatorIssue]
        assert pocket.name not in {row.recipe for row in method.rows}


@pytest.mark.parametrize("recipe", FAIR, ids=lambda recipe: recipe.name)
def test_only_the_method_differs(recipe: Recipe) -> None:
    name = recipe.name.removeprefix(fair.PREFIX).removesuffix(fair.WITH_RMP)
    method = METHODS[name]
    fields = vars(recipe).keys() - {"name", "title"}
    changed = {f for f in fields if getattr(recipe, f) != getattr(fair.PROTOCOL, f)}
    added = {"objective"} if recipe.name.endswith(fair.WITH_RMP) else set()
    assert changed <= {*method.parts, *added}
    assert {"data", "T", "epochs", "batch_size", "lr", "optimizer"}.isdisjoint(changed)


@pytest.mark.parametrize("recipe", FAIR, ids=lambda recipe: recipe.name)
def test_the_fair_comparison_can_run(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DATASETS["cifar10"], "missing", lambda self, root: [])
    check(recipe)


def test_networks_of_recipes_exist(method: Method) -> None:
    assert all(recipe.network.name in MODELS for recipe in method.recipes)
