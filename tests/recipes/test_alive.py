"""Every recipe is alive before its first step: gradients everywhere, and no silent layer.

pytest tests/recipes/test_alive.py              the pocket variants and the small recipes
pytest -m slow tests/recipes/test_alive.py      the recipes of full size as well, in minutes
"""

from fnmatch import fnmatchcase

import alive
import pytest

from rmploss import recipes

SMALL, FULL = alive.groups(alive.small()), alive.groups(alive.full_size())


@pytest.mark.parametrize(
    "name", [*SMALL, *(pytest.param(name, marks=pytest.mark.slow) for name in FULL)]
)
def test_a_recipe_is_alive(name: str) -> None:
    start = alive.start_of(recipes.get(name))
    asleep = [e for e in alive.ASLEEP if e.covers(name, start)]
    dead = (start.without, start.silent, start.silent_settled)
    assert asleep or dead == ((), (), ())


@pytest.mark.parametrize("name", ["cifar10-plif-plifnet-pocket", "cifar10-tet-resnet19-pocket"])
def test_what_a_method_lets_sleep_wakes_in_training(name: str) -> None:
    recipe = recipes.get(name)
    assert alive.start_of(recipe).without
    assert alive.waking(recipe) is not None


@pytest.mark.parametrize("asleep", alive.ASLEEP, ids=lambda asleep: asleep.recipes)
def test_no_reason_is_given_for_nothing(asleep: alive.Asleep) -> None:
    """Every pattern of it matches something that sleeps in a pocket variant, else at full size."""
    rows = [row for row in alive.rows() if row["without"] != "0" or row["silent"]]
    names = [row["recipe"] for row in rows if asleep.is_for(row["recipe"])]
    assert names
    start = alive.start_of(recipes.get(next((n for n in names if n.endswith("-pocket")), names[0])))
    for pattern in asleep.parameters:
        assert any(fnmatchcase(name, pattern) for name in start.without), pattern
    assert {*asleep.layers} <= {*start.silent, *start.silent_settled}


def test_every_recipe_has_a_row() -> None:
    named = {name for row in alive.rows() for name in (row["recipe"], *row["alike"].split())}
    missing = {name for alike in SMALL.values() for name in alike} - named
    assert not missing, "python tools/alive.py, then python tools/docs.py"
