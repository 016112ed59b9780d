"""The protocol in which every system is at its best: what all share, and what each may try."""

import csv
from pathlib import Path

import pytest

from rmploss.engine.build import PARTS, make_objective
from rmploss.engine.fair_best import Comparison
from rmploss.engine.rows import Rows
from rmploss.objectives.several import SeveralRegularizers
from rmploss.recipes import METHODS, Recipe, use
from rmploss.recipes.fair import fair
from rmploss.recipes.fair_best import (
    FULL,
    OWN,
    POCKET,
    STEPS,
    Protocol,
    spelled,
    with_rmp_too,
)
from rmploss.recipes.pocket import fair_pocket

ROOT = Path(__file__).parents[2]
SHARED = (
    "data",
    "T",
    "lr_schedule",
    "epochs",
    "batch_size",
    "train_samples",
    "test_samples",
    "validation",
    "average",
    "start",
    "amp",
    "seed",
)
"""The fields that no try changes."""


@pytest.fixture(params=[FULL, POCKET], ids=["full", "pocket"])
def protocol(request: pytest.FixtureRequest) -> Protocol:
    return request.param


def shared(recipe: Recipe) -> dict[str, object]:
    # Joint A-SNN's network is the common one and an ANN beside it.
    network = recipe.network.options.get("backbone", recipe.network.name)
    return {"network": network, **{name: getattr(recipe, name) for name in SHARED}}


def test_the_systems_have_two_or_three_own_numbers() -> None:
    # A comparison of some would say nothing of the others: a new method needs its numbers, too.
    assert set(OWN) == set(METHODS)
    assert all(2 <= len(own) <= 3 for name, own in OWN.items() if name != "rmp")
    # RMP-Loss is a loss of the vanilla network, whose numbers it may choose, too.
    assert set(OWN["rmp"]) - set(OWN["vanilla"]) == {"objective.k", "objective.p"}
    assert OWN["vanilla"].items() <= OWN["rmp"].items()


def test_all_have_the_budget_and_begin_with_the_fair_setting(protocol: Protocol) -> None:
    for system in OWN:
        settings = protocol.settings(system)
        assert len(settings) == protocol.tries
        assert len({spelled(setting) for setting in settings}) == protocol.tries
        assert settings[0] == {}
        assert settings == protocol.settings(system)


def test_the_first_report_is_the_fair_recipe_in_the_size_of_the_protocol() -> None:
    recipe = fair(METHODS["tet"])
    assert FULL.recipe("tet", {}) == recipe
    assert POCKET.recipe("tet", {}) == fair_pocket(recipe).but(**POCKET.changes)


@pytest.mark.parametrize("system", OWN)
def test_only_the_training_and_own_numbers_differ(system: str, protocol: Protocol) -> None:
    expected = shared(protocol.try_of("vanilla", {}))
    for number, setting in enumerate(protocol.settings(system)):
        recipe = protocol.try_of(system, setting)
        assert shared(recipe) == expected
        if not number:
            continue
        step = STEPS[number - 1]
        assert (recipe.optimizer.name, recipe.weight_decay) == (step.optimizer, step.weight_decay)
        assert recipe.lr == step.rate_beside(protocol.recipe("vanilla", {}).lr)
        assert set(setting) == {"optimizer", "lr", "weight_decay", *OWN[system]}
        for name, values in OWN[system].items():
            assert setting[name] in values


def rates(protocol: Protocol, optimizer: str) -> list[float]:
    tries = [protocol.try_of("vanilla", setting) for setting in protocol.settings("vanilla")]
    return [recipe.lr for recipe in tries if recipe.optimizer.name == optimizer]


def test_rates_of_sgd_follow_the_own_rate_of_the_size() -> None:
    assert rates(POCKET, "sgd") == [0.1, 0.3, 0.03]
    assert rates(FULL, "sgd") == [0.01, 0.03, 0.003]
    assert rates(POCKET, "adam") == rates(FULL, "adam") == [0.003, 0.01, 0.001]


def test_every_recorded_row_is_of_a_present_recipe_and_no_try_lacks_one() -> None:
    path = ROOT / "results" / POCKET.file
    with path.open(newline="") as file:
        recorded = {(row["fingerprint"], int(row["seed"])) for row in csv.DictReader(file)}
    rows = Rows(path)
    comparison, known = Comparison(POCKET, rows), []
    for system in OWN:
        tries = [POCKET.try_of(system, setting) for setting in POCKET.settings(system)]
        chosen = comparison.chosen(system)
        assert chosen is not None
        reports = [POCKET.recipe(system, setting) for setting in ({}, chosen)]
        if with_rmp_too(system):
            reports.append(POCKET.recipe(system, chosen, rmp=True))
        known += tries + [recipe.but(seed=seed) for recipe in reports for seed in POCKET.seeds]
    found = [row for row in map(rows.of, known) if row is not None]
    assert len(found) == len(known)
    assert {(row.fingerprint, row.seed) for row in found} == recorded


@pytest.mark.parametrize("system", ["stbp", "plif", "diet"])
def test_the_page_says_truly_that_the_optimizer_woke_a_system(system: str) -> None:
    """Its best try with Adam is 4 to 11 points above its best with SGD, of 1,000 images each.

    At 20 % two standard errors of a difference are 2 sqrt(2 * 0.2 * 0.8 / 1000), 3.6 points.
    """
    rows = Rows(ROOT / "results" / POCKET.file)
    found: dict[str, list[float]] = {"sgd": [], "adam": []}
    for setting in POCKET.settings(system):
        recipe = POCKET.try_of(system, setting)
        row = rows.of(recipe)
        assert row is not None
        found[recipe.optimizer.name].append(row.accuracy)
    assert 4 <= max(found["adam"]) - max(found["sgd"]) <= 11


def test_the_page_counts_truly_how_many_choose_adam() -> None:
    comparison = Comparison(POCKET, Rows(ROOT / "results" / POCKET.file))
    chosen = [comparison.chosen(system) for system in OWN]
    assert (
        sum(setting is not None and setting.get("optimizer") == "adam" for setting in chosen) == 18
    )


def test_two_numbers_do_not_go_in_step() -> None:
    # In step, k candidates of either number make k pairs, however many the tries are.
    pairs = {(s["neuron.decay"], s["norm.alpha"]) for s in POCKET.settings("vanilla")[1:]}
    assert len(pairs) > 3


def test_orders_of_one_number_differ_from_system_to_system() -> None:
    orders = {
        tuple(setting["norm.alpha"] for setting in POCKET.settings(system)[1:])
        for system, own in OWN.items()
        if own.get("norm.alpha") == OWN["vanilla"]["norm.alpha"]
    }
    assert len(orders) > 1


@pytest.mark.parametrize("system", OWN)
def test_no_candidate_is_tried_twice_before_every_other_once(system: str) -> None:
    tries = FULL.settings(system)[1:]
    for name, values in OWN[system].items():
        first = [setting[name] for setting in tries[: len(values)]]
        assert len(set(first)) == len(values)


@pytest.mark.parametrize("system", OWN)
def test_every_candidate_is_an_option_of_its_entry(system: str) -> None:
    for name, values in OWN[system].items():
        field, _, option = name.partition(".")
        entry = getattr(POCKET.recipe(system, {}), field)
        for value in values:
            part = entry.but(**{option: value})
            assert PARTS[field].problems(part.name, part.options) == []


def test_tries_are_tested_on_held_out_images_with_a_seed_of_their_own(protocol: Protocol) -> None:
    recipe = protocol.try_of("vanilla", {})
    assert recipe.validation == protocol.validation
    assert protocol.try_seed not in protocol.seeds
    assert protocol.recipe("vanilla", {}).validation is None


def test_a_pocket_try_trains_on_as_many_images_as_its_report() -> None:
    tried, reported = POCKET.try_of("vanilla", {}), POCKET.recipe("vanilla", {})
    assert tried.train_samples
    assert tried.validation
    assert tried.train_samples * (1 - tried.validation) == reported.train_samples
    assert tried.epochs == reported.epochs
    assert FULL.try_of("vanilla", {}).train_samples is None


def test_rmp_loss_is_added_to_what_was_chosen() -> None:
    chosen = {"optimizer": "adam", "lr": 0.003, "objective.weight": 0.7}
    recipe = POCKET.recipe("im", chosen, rmp=True)
    assert recipe.name == "fair-im-rmp-pocket"
    assert (recipe.optimizer.name, recipe.lr) == ("adam", 0.003)
    objective = make_objective(recipe)
    assert isinstance(objective, SeveralRegularizers)
    im, rmp = objective.terms
    assert im.weight(0.5) == 0.7
    assert rmp.weight(0.5) == pytest.approx(0.1)
    assert POCKET.recipe("tet", {}, rmp=True).objective == use("rmp", k=0.1, p=2.0)
    alone = {system for system in OWN if not with_rmp_too(system)}
    assert alone == {"vanilla", "rmp", "tssl", "dsr", "liaf"}
