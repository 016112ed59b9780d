"""The sentences of the report: effect of RMP-Loss, differing fields, rows of the paper."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from rmploss import recipes
from rmploss.recipes import Recipe
from rmploss.report import story
from rmploss.report.read import Group, read
from tests.report.folders import WITH, WITHOUT, run_folder

ONE_SEED = " One seed cannot distinguish a small difference from noise."


def ablation(
    tmp_path: Path, without: Sequence[tuple[float, float]], with_: Sequence[tuple[float, float]]
) -> list[Group]:
    """Groups of runs with these accuracies and quantization errors, one per seed."""
    runs = [
        read(run_folder(tmp_path, recipe.but(seed=seed), accuracy=accuracy, error=error))
        for recipe, numbers in ((WITH, with_), (WITHOUT, without))
        for seed, (accuracy, error) in enumerate(numbers)
    ]
    return story.group_runs(runs)


@pytest.mark.parametrize(
    ("without", "with_", "sentence"),
    [
        pytest.param(
            (90.0, 0.2),
            (91.5, 0.15),
            "RMP-Loss lowered the quantization error by 25 % (0.200 to 0.150) and "
            "gained 1.50 points of accuracy (90.00 to 91.50 %).",
            id="helped",
        ),
        pytest.param(
            (90.0, 0.2),
            (90.0, 0.15),
            "RMP-Loss lowered the quantization error by 25 % (0.200 to 0.150) and "
            "left the accuracy where it was (90.00 %).",
            id="lowered the error alone",
        ),
        pytest.param(
            (90.0, 0.2),
            (88.0, 0.15),
            "RMP-Loss lowered the quantization error by 25 % (0.200 to 0.150) but "
            "cost 2.00 points of accuracy (90.00 to 88.00 %).",
            id="mixed",
        ),
        pytest.param(
            (90.0, 0.2),
            (90.04, 0.202),
            "RMP-Loss changed little: quantization error 0.200 to 0.202, "
            "accuracy 90.00 to 90.04 %.",
            id="nothing",
        ),
        pytest.param(
            (90.0, 0.2),
            (88.0, 0.3),
            "RMP-Loss raised the quantization error by 50 % (0.200 to 0.300) and "
            "cost 2.00 points of accuracy (90.00 to 88.00 %): here it did harm.",
            id="harmed",
        ),
        pytest.param(
            (90.0, 0.2),
            (88.0, 0.2),
            "RMP-Loss left the quantization error where it was (0.200) and "
            "cost 2.00 points of accuracy (90.00 to 88.00 %): here it did harm.",
            id="cost accuracy alone",
        ),
    ],
)
def test_what_rmp_loss_did(
    tmp_path: Path, without: tuple[float, float], with_: tuple[float, float], sentence: str
) -> None:
    assert story.describe_effect(ablation(tmp_path, [without], [with_])) == sentence + ONE_SEED


def test_a_difference_within_the_spread_over_seeds_is_no_gain(tmp_path: Path) -> None:
    groups = ablation(tmp_path, [(89.0, 0.2), (91.0, 0.2)], [(89.5, 0.1), (91.5, 0.1)])
    assert story.describe_effect(groups) == (
        "RMP-Loss lowered the quantization error by 50 % (0.200 to 0.100) and "
        "moved the accuracy no more than another seed does (90.00 to 90.50 %)."
    )


def test_the_groups_of_the_ablation_come_in_its_order_with_their_names(tmp_path: Path) -> None:
    groups = ablation(tmp_path, [(90.0, 0.2)], [(91.0, 0.1), (91.0, 0.1)])
    assert [(group.label, group.hue, len(group.runs)) for group in groups] == [
        ("without RMP-Loss", 0, 1),
        ("with RMP-Loss", 1, 2),
    ]


def test_one_recipe_is_one_group_of_the_color_of_its_kind(tmp_path: Path) -> None:
    [group] = ablation(tmp_path, [], [(91.0, 0.1), (91.0, 0.1)])
    assert (group.label, group.hue) == ("digits-rmp", 1)
    assert story.describe_effect([group]) == ""


def test_it_is_too_early_while_a_run_goes_on(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path, WITHOUT), run_folder(tmp_path, WITH, epochs=3, finished=False)]
    text = story.describe_effect(story.group_runs([read(path) for path in runs]))
    assert text == ("The effect of RMP-Loss cannot be judged yet. Missing: digits-rmp-s0.")


def test_an_effect_is_claimed_only_where_all_else_is_alike(tmp_path: Path) -> None:
    runs = [run_folder(tmp_path, WITHOUT.but(T=6)), run_folder(tmp_path, WITH)]
    groups = story.group_runs([read(path) for path in runs])
    assert [group.label for group in groups] == ["digits", "digits-rmp"]
    assert story.describe_effect(groups).startswith(
        "The recipes differ in T (6, 4); objective (none, rmp)"
    )


def test_recipes_that_are_no_ablation_are_reported_apart(tmp_path: Path) -> None:
    strong = recipes.override(WITH, {"objective.k": 3.0})
    runs = [run_folder(tmp_path, WITH, name="a"), run_folder(tmp_path, strong, name="b")]
    groups = story.group_runs([read(path) for path in runs])
    assert [group.label for group in groups] == ["a", "b"]
    assert story.describe_effect(groups) == "The recipes differ in objective.k (1.0, 3.0)."


PAPER = recipes.get("cifar10-resnet20-rmp")


@pytest.mark.parametrize(
    ("recipe", "accuracies"),
    [
        (PAPER.but(seed=7), [91.89, 91.89]),
        (PAPER.but(T=6), [92.55]),
        (PAPER.but(epochs=399), []),
        (recipes.get("cifar10-resnet20-rmp-pocket"), []),
        (WITH, []),
    ],
)
def test_only_the_unchanged_recipe_answers_to_the_paper(
    recipe: Recipe, accuracies: list[float]
) -> None:
    assert [row.accuracy for row in story.published_rows(recipe)] == accuracies


def test_changes_against_the_recipe_of_that_name() -> None:
    assert story.changed_fields(PAPER.but(seed=3)) == []
    assert story.changed_fields(recipes.override(PAPER, {"neuron.decay": 0.5, "epochs": 9})) == [
        "neuron.decay",
        "epochs",
    ]
    assert story.changed_fields(PAPER.but(name="mine")) is None
