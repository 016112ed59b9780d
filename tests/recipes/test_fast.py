"""The fast recipes: the rows of the paper with another training, and nothing else."""

import pytest

from rmploss.recipes import FAST, METHODS, RECIPES, Recipe, use
from rmploss.recipes.pocket import SUFFIX

ROWS = [r for r in METHODS["rmp"].recipes if r.data.name in ("cifar10", "cifar100")]
KEPT = ("network", "T", "neuron", "norm", "objective", "auxiliary", "start", "batch_size")
KEPT += ("accumulate", "clip_norm", "train_samples", "test_samples", "pocket", "seed")


def test_no_two_recipes_share_a_title() -> None:
    titles = [recipe.title for recipe in RECIPES.values()]
    assert sorted({*titles}) == sorted(titles)


def test_every_cifar_row_has_both() -> None:
    names = {f"{recipe.name}{suffix}" for recipe in ROWS for suffix in ("-fast", "-fast45")}
    assert {recipe.name for recipe in FAST} == names
    assert len(FAST) == 18


@pytest.mark.parametrize("recipe", FAST, ids=lambda recipe: recipe.name)
def test_only_the_training_differs_from_the_row(recipe: Recipe) -> None:
    row = RECIPES[recipe.name.partition("-fast")[0]]
    assert all(getattr(recipe, field) == getattr(row, field) for field in KEPT)
    assert (recipe.lr, recipe.weight_decay, recipe.weight_decay_on) == (0.1, 5e-4, "weights")
    assert recipe.optimizer == use("sgd", momentum=0.9, nesterov=True)
    assert recipe.lr_schedule == use("onecycle", warm_up=0.2, initial=0.0, rise="linear")
    assert recipe.loss == use("ce", smoothing=0.1)
    assert recipe.average == use("ema", decay=0.999)
    assert recipe.amp == "bf16"
    assert row.amp == "off"  # the paper's rows stay in float32
    short = recipe.name.endswith("45")
    assert recipe.epochs == (45 if short else 100)
    assert recipe.data == (row.data.but(augment="standard") if short else row.data)


@pytest.mark.parametrize("row", ROWS, ids=lambda recipe: recipe.name)
def test_the_pocket_variant_keeps_the_training(row: Recipe) -> None:
    recipe, pocket = RECIPES[f"{row.name}-fast"], RECIPES[f"{row.name}-fast{SUFFIX}"]
    assert pocket.pocket
    assert pocket.amp == "off"  # half precision is for GPUs
    fields = ("lr", "lr_schedule", "loss", "optimizer", "average", "weight_decay")
    fields += ("weight_decay_on",)
    assert all(getattr(pocket, field) == getattr(recipe, field) for field in fields)
    other = RECIPES[row.name + SUFFIX]
    fields = ("data", "network", "objective", "epochs", "train_samples", "test_samples")
    assert all(getattr(pocket, field) == getattr(other, field) for field in fields)
    assert f"{row.name}-fast45{SUFFIX}" not in RECIPES
