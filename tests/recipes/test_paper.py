"""The recipes and rows against the paper: Tables 1-4, section 5.1, and the two readings."""

import pytest

from rmploss import UserError
from rmploss.data import DATASETS
from rmploss.engine.build import resolve
from rmploss.engine.optimizers import LR_SCHEDULES, OPTIMIZERS
from rmploss.models import MODELS
from rmploss.neurons import NEURONS
from rmploss.norm import NORMS
from rmploss.objectives import LOSSES, OBJECTIVES
from rmploss.recipes import (
    FAIR,
    FAST,
    METHODS,
    PUBLISHED,
    READINGS,
    RECIPES,
    ROWS,
    Mode,
    Reading,
    Recipe,
    Row,
    own,
    problems_in,
    read_as,
    rmp,
    small,
    use,
)
from rmploss.recipes.pocket import SUFFIX

# Copied from the paper: architecture, T, accuracy in percent (and its deviation).
TABLE_1 = {
    ("resnet20", False): (4, 91.26, 0.186), ("resnet20", True): (4, 91.89, 0.121),
    ("resnet19", False): (4, 95.04, 0.128), ("resnet19", True): (4, 95.51, 0.104),
    ("vgg16", False): (4, 92.80, 0.174), ("vgg16", True): (4, 93.33, 0.135),
}  # fmt: skip
TABLES_2_TO_4 = {
    (2, "cifar10"): [
        ("resnet19", 2, 95.31, 0.07), ("resnet19", 4, 95.51, 0.08), ("resnet19", 6, 96.10, 0.08),
        ("resnet20", 4, 91.89, 0.05), ("resnet20", 6, 92.55, 0.06),
        ("vgg16", 4, 93.33, 0.07), ("vgg16", 10, 94.39, 0.08),
    ],
    (2, "cifar100"): [
        ("resnet20", 4, 66.65, 0.10), ("vgg16", 4, 72.55, 0.08), ("vgg16", 10, 73.30, 0.11),
        ("resnet19", 2, 74.66, 0.12), ("resnet19", 4, 78.28, 0.10), ("resnet19", 6, 78.98, 0.08),
    ],
    (3, "cifar10-dvs"): [("resnet19", 10, 76.20, 0.20), ("resnet20", 10, 75.60, 0.30)],
    (4, "imagenet"): [("resnet18", 4, 63.03, 0.07), ("resnet34", 4, 65.17, 0.07)],
}  # fmt: skip

NOT_FIELDS = ("threshold", "shuffle", "initialization", "accuracy", "the")
"""Doubts that no field decides: both modes fire at equality, shuffle, and measure alike."""
MODES: tuple[Mode, ...] = ("paper", "code")
PAPERS = [recipe.name for recipe in rmp.RECIPES]


def test_table_1() -> None:
    rows = [row for row in ROWS if row.table == 1]
    ours = {}
    for row in rows:
        recipe = RECIPES[row.recipe]
        assert recipe.data.name == "cifar10"
        assert row.std is None
        key = recipe.network.name, recipe.objective.name == "rmp"
        ours[key] = (row.T, row.accuracy, row.error)
    assert ours == TABLE_1
    assert len(rows) == 6


def test_tables_2_to_4() -> None:
    ours: dict[tuple[int, str], list[tuple[str, int, float | None, float | None]]] = {}
    for row in METHODS["rmp"].rows:
        if row.table == 1:
            continue
        recipe = RECIPES[row.recipe]
        assert recipe.objective.name == "rmp"
        assert row.error is None
        line = (recipe.network.name, row.T, row.accuracy, row.std)
        ours.setdefault((row.table, recipe.data.name), []).append(line)
    assert ours == TABLES_2_TO_4


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"table {row.table} {row.recipe} T={row.T}")
def test_a_row_sets_its_number_of_steps(row: Row) -> None:
    recipe = RECIPES[row.recipe]
    at_T = row.with_T(recipe)
    assert at_T.T == row.T
    assert at_T.but(T=recipe.T) == recipe
    assert not recipe.pocket


def test_every_recipe_of_the_paper_answers_a_row() -> None:
    for method in METHODS.values():
        answering = {row.recipe for row in method.rows}
        assert answering <= {recipe.name for recipe in method.recipes}
    assert {row.recipe for row in METHODS["rmp"].rows} == set(PAPERS)


@pytest.mark.parametrize("name", PAPERS)
def test_the_training_of_section_5(name: str) -> None:
    recipe = RECIPES[name]
    assert (recipe.optimizer.name, dict(recipe.optimizer.options)) == ("sgd", {"momentum": 0.9})
    assert recipe.lr_schedule == use("cosine")
    assert recipe.weight_decay == 1e-4
    assert (recipe.amp, recipe.accumulate, recipe.seed) == ("off", 1, 0)
    assert (recipe.train_samples, recipe.test_samples) == (None, None)
    if recipe.data.name == "imagenet":
        assert (recipe.lr, recipe.epochs) == (0.1, 320)
    else:
        assert (recipe.lr, recipe.epochs, recipe.batch_size) == (0.01, 400, 128)
    if recipe.data.name in ("cifar10", "cifar100"):
        assert recipe.data.options == {"augment": "autoaugment+cutout"}
    if recipe.objective.name == "rmp":
        loss = OBJECTIVES.make("rmp", **recipe.objective.options)
        assert loss.weight(0.5) == 0.1
        assert loss.spec.p == 2
        assert name.endswith("-rmp")


@pytest.mark.parametrize("mode", ["paper", "code"])
@pytest.mark.parametrize("name", RECIPES)
def test_every_name_and_option_exists(name: str, mode: str) -> None:
    recipe = RECIPES[name]
    if mode == "code":
        if name.removesuffix(SUFFIX) not in {*PAPERS, "digits", "digits-rmp"}:
            return
        recipe = read_as(recipe, "code")
    registries = {
        "data": DATASETS, "network": MODELS, "neuron": NEURONS, "norm": NORMS,
        "loss": LOSSES, "objective": OBJECTIVES, "optimizer": OPTIMIZERS,
        "lr_schedule": LR_SCHEDULES,
    }  # fmt: skip
    for field, registry in registries.items():
        used = getattr(recipe, field)
        assert registry.problems(used.name, used.options) == [], field
    assert problems_in(recipe) == []
    assert recipe.title


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_known_by_its_name(name: str) -> None:
    assert RECIPES[name].name == name


def test_no_name_is_used_twice() -> None:
    count = len(small.RECIPES) + len(own.RECIPES) + 2 * (len(PUBLISHED) + len(FAIR))
    count += len(FAST) + len(FAST) // 2
    assert len(RECIPES) == count


@pytest.mark.parametrize("name", PAPERS)
def test_every_recipe_of_the_paper_has_a_pocket_variant(name: str) -> None:
    recipe, pocket = RECIPES[name], RECIPES[name + SUFFIX]
    assert pocket.pocket
    assert pocket.T == recipe.T
    assert pocket.data.name == recipe.data.name
    if "augment" in recipe.data.options:
        assert pocket.data == recipe.data.but(augment="standard")
    assert pocket.objective == recipe.objective
    assert pocket.network.name == recipe.network.name
    assert isinstance(pocket.network.options["width"], float)
    assert pocket.network.options["width"] < 0.5
    assert pocket.epochs < 20
    assert pocket.train_samples
    assert pocket.test_samples
    assert pocket.name not in {row.recipe for row in ROWS}


@pytest.mark.parametrize("name", PAPERS)
def test_the_two_readings(name: str) -> None:
    recipe = RECIPES[name]
    assert read_as(recipe, "paper") is recipe
    code = read_as(recipe, "code")
    assert code.name == name + "-code"
    assert code.network.options["readout"] == "mean"
    assert code.norm.options["factor"] == "none"
    if recipe.objective.name == "rmp":
        assert code.objective.options["potential"] == "input"
        assert code.objective.options["exclude"] == ("*.lif1",)
        assert code.objective.options["k"] == 0.1
    else:
        assert code.objective == recipe.objective
    if recipe.data.name == "cifar10-dvs":
        assert code.data == recipe.data.but(split="files0-899")
    elif recipe.data.name in ("cifar10", "cifar100"):
        assert code.data == recipe.data.but(policy="family")
    else:
        assert code.data == recipe.data
    trainer = ("weights", "fp16") if recipe.data.name == "imagenet" else ("all", "off")
    assert (code.weight_decay_on, code.amp) == trainer
    assert code.fingerprint() != recipe.fingerprint()


def value_of(recipe: Recipe, field: str) -> str | None:
    """The value of a field by its dotted name, defaults included; None if the recipe has none."""
    head, _, option = field.partition(".")
    value = getattr(resolve(recipe), head)
    if option and option not in value.options:
        return None
    value = value.options[option] if option else value
    if value is None or isinstance(value, bool):
        return str(value).lower()
    return str(value).replace("'", '"')


def is_about(recipe: Recipe, where: str) -> bool:
    """True for a recipe of the data or the network in brackets behind a field."""
    data, network = recipe.data.name, recipe.network.name
    named = {"(CIFAR)": data in ("cifar10", "cifar100"), "": True}
    named |= {"(CIFAR10-DVS)": data == "cifar10-dvs", "(ImageNet)": data == "imagenet"}
    return (named | {"(ResNet19)": network == "resnet19"})[where]


@pytest.mark.parametrize("reading", READINGS, ids=lambda reading: reading.field)
def test_a_reading_names_a_field_and_the_value_it_gets(reading: Reading) -> None:
    assert reading.reason
    field, _, where = reading.field.partition(" ")
    if field in NOT_FIELDS:
        # No mode changes it, whatever the group's code does.
        assert reading.taken == reading.paper
        return
    found = {
        mode: {value_of(read_as(r, mode), field) for r in rmp.RECIPES if is_about(r, where)}
        for mode in MODES
    }
    expected = {"paper": reading.paper, "code": reading.taken}
    assert {mode: values - {None} for mode, values in found.items()} == {
        mode: {text} for mode, text in expected.items()
    }


@pytest.mark.parametrize("name", ["fair-tdbn", "fair-im-rmp", "fair-stbp", "cifar10-tet-resnet19"])
def test_the_code_reading_is_of_rmp_loss_alone(name: str) -> None:
    with pytest.raises(UserError, match="is a recipe of another method"):
        read_as(RECIPES[name], "code")


def test_recipes_are_recipes() -> None:
    assert all(isinstance(recipe, Recipe) for recipe in RECIPES.values())
